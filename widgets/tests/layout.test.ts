import { describe, expect, test } from "vitest";
import { cellBox, hitTest } from "../src/grid/hit";
import { arrange, type LayoutOptions } from "../src/grid/layout";

const SHAPES = [
  { layers: 2, heads: 2, kvHeads: 2 },
  { layers: 30, heads: 9, kvHeads: 3 },
  { layers: 126, heads: 128, kvHeads: 8 },
  { layers: 1, heads: 512, kvHeads: 64 },
  { layers: 400, heads: 1, kvHeads: 1 },
];
const base: LayoutOptions = { panels: 1, width: 900, titled: false, groups: true, distribution: true };

describe.each(SHAPES)("$layers x $heads", (shape) => {
  test.each([1, 3, 7])(
    "with %i panels the hit test at the middle of a cell returns this cell only",
    (panels) => {
      const layout = arrange(shape, { ...base, panels, titled: panels > 1 });
      for (let panel = 0; panel < panels; panel++) {
        for (let cell = 0; cell < shape.layers * shape.heads; cell += 7) {
          const [x, y, width, height] = cellBox(layout, panel, cell);
          expect(hitTest(layout, x + width / 2, y + height / 2)).toMatchObject({
            panel,
            at: "head",
            cells: [cell],
          });
        }
      }
    },
  );

  test.each([200, 500, 1400])("a panel fits into %i pixels, or its cells have the smallest size", (width) => {
    const layout = arrange(shape, { ...base, width });
    expect(layout.panelWidth <= width || layout.cellWidth === 3).toBe(true);
    expect(layout.width).toBeGreaterThanOrEqual(layout.panelWidth);
  });
});

test("next to a row is its layer, below a column its head, above it its key/value group, elsewhere nothing", () => {
  const layout = arrange({ layers: 3, heads: 4, kvHeads: 2 }, base);
  const [origin] = layout.origins;
  if (!origin) throw new Error("no panel");
  const middle = origin.y + 1.5 * layout.cellHeight;
  expect(hitTest(layout, origin.x - 10, middle)).toMatchObject({
    panel: 0,
    at: "layer",
    cells: [4, 5, 6, 7],
  });
  expect(hitTest(layout, origin.x + layout.gridWidth + 20, middle)?.at).toBe("layer");
  expect(hitTest(layout, origin.x + layout.gridWidth - 2, origin.y - 6)?.cells).toEqual([2, 3, 6, 7, 10, 11]);
  expect(hitTest(layout, 5, 5)).toBeNull();
  const below = (x: number, y: number) => hitTest(layout, origin.x + x, origin.y + layout.gridHeight + y);
  expect(below(layout.cellWidth + 5, 5)).toMatchObject({ at: "column", cells: [1, 5, 9] });
  expect(below(5, 25)).toBeNull();
  expect(below(-5, 5)).toBeNull();
});

test("cells grow with the width up to a limit, and leave room for the text beside a single panel", () => {
  const shape = { layers: 30, heads: 9, kvHeads: 3 };
  const at = (width: number, panels = 1) => arrange(shape, { ...base, width, panels });
  expect(at(600)).toMatchObject({ cellWidth: 28, cellHeight: 14 });
  expect(at(1000)).toMatchObject({ cellWidth: 39, cellHeight: 19 });
  expect(at(4000).cellWidth).toBe(at(1000).cellWidth);
  for (const width of [640, 700, 760]) expect(at(width).panelWidth + 270).toBeLessThanOrEqual(width);
  for (const width of [900, 1100, 1400, 1800]) {
    expect(at(width, 3)).toMatchObject({ columns: 3 });
    expect(at(width, 3).width).toBeLessThanOrEqual(width);
  }
  expect(at(1800, 3).cellWidth).toBeGreaterThan(at(1100, 3).cellWidth);
});

test("panels are side by side on a wide page and below each other on a narrow page", () => {
  const shape = { layers: 30, heads: 9, kvHeads: 3 };
  expect(arrange(shape, { ...base, panels: 3, width: 1000 }).columns).toBe(3);
  expect(arrange(shape, { ...base, panels: 3, width: 320 }).columns).toBe(1);
});
