import { describe, expect, test } from "vitest";
import { cellsOf, headPlace, namesOf, sameHeads } from "../src/grid/heads";
import { NOTHING, pressed, type Selection, selected } from "../src/grid/selection";

const shape = { layers: 3, heads: 4, kvHeads: 4 };
const names = (selection: Selection) => namesOf(selection.cells, shape).join(",");

function typed(...keys: string[]): Selection {
  return keys.reduce((selection, words) => {
    const key = {
      key: words.replace(/^[⇧⌃]/u, ""),
      shift: words.startsWith("⇧"),
      control: words.startsWith("⌃"),
    };
    return pressed(selection, key, shape) ?? selection;
  }, NOTHING);
}

describe("the mouse", () => {
  const click = (selection: Selection, cell: number) => selected(selection, [cell], "replace", shape);
  test("a click selects a head, a click on another head replaces it, a click on the same head clears it", () => {
    const first = click(NOTHING, 5);
    expect(names(first)).toBe("L1H1");
    expect(names(click(first, 6))).toBe("L1H2");
    expect(names(click(first, 5))).toBe("");
  });
  test("a shift-click selects the rectangle from the last click", () => {
    expect(names(selected(click(NOTHING, 5), [10], "extend", shape))).toBe("L1H1,L1H2,L2H1,L2H2");
  });
  test("a second shift-click starts from the same head", () => {
    const twice = selected(selected(click(NOTHING, 5), [10], "extend", shape), [0], "extend", shape);
    expect(names(twice)).toBe("L0H0,L0H1,L1H0,L1H1");
  });
  test("a control-click adds or removes a head", () => {
    const both = selected(click(NOTHING, 0), [11], "toggle", shape);
    expect(names(both)).toBe("L0H0,L2H3");
    expect(names(selected(both, [0], "toggle", shape))).toBe("L2H3");
  });
});

describe("the keyboard", () => {
  test("the first arrow key goes to the first head, further ones move the cursor within the grid", () => {
    expect(typed("ArrowDown").cursor).toBe(0);
    expect(typed("ArrowDown", "ArrowDown", "ArrowRight").cursor).toBe(5);
    expect(typed("ArrowDown", "ArrowLeft", "ArrowUp").cursor).toBe(0);
    expect(typed("ArrowDown", "PageDown", "End").cursor).toBe(11);
    expect(typed("ArrowDown", "⌃End", "⌃Home").cursor).toBe(0);
  });
  test("moving selects nothing; Space toggles, Enter replaces, Escape clears", () => {
    expect(names(typed("ArrowDown", "ArrowRight"))).toBe("");
    expect(names(typed("ArrowDown", " ", "ArrowRight", " "))).toBe("L0H0,L0H1");
    expect(names(typed("ArrowDown", " ", "ArrowRight", "Enter"))).toBe("L0H1");
    expect(names(typed("ArrowDown", " ", "Escape"))).toBe("");
  });
  test("Shift and arrow keys select a rectangle", () => {
    expect(names(typed("ArrowDown", "ArrowRight", "⇧ArrowRight", "⇧ArrowDown"))).toBe("L0H1,L0H2,L1H1,L1H2");
  });
  test("Shift Space toggles the layer of the cursor, Control Space the same head of all layers", () => {
    expect(names(typed("ArrowDown", "ArrowDown", "⇧ "))).toBe("L1H0,L1H1,L1H2,L1H3");
    expect(names(typed("ArrowDown", "ArrowRight", "⌃ "))).toBe("L0H1,L1H1,L2H1");
    expect(names(typed("ArrowDown", "⇧ ", "⌃ "))).toBe("L0H0,L0H1,L0H2,L0H3,L1H0,L2H0");
    expect(names(typed("ArrowDown", "⇧ ", "⇧ "))).toBe("");
    expect(typed("ArrowDown", "ArrowRight", "⌃ ").cursor).toBe(1);
  });
  test("Control A selects all heads, and other keys are ignored", () => {
    expect(typed("⌃a").cells.size).toBe(12);
    expect(pressed(NOTHING, { key: "s", shift: false, control: true }, shape)).toBeNull();
    expect(pressed(NOTHING, { key: "Escape", shift: false, control: false }, shape)).toBeNull();
  });
});

describe("names", () => {
  test.each(["L2H3", " L0H0 "])("%s is a head", (name) => expect(headPlace(name, shape)).not.toBeNull());
  test.each(["L3H0", "L0H4", "3.1", "L1", "H1", "L-1H0", "L0H0x", ""])("%j is not a head", (name) =>
    expect(headPlace(name, shape)).toBeNull(),
  );
  test("of a selection of layers and heads have the model's numbers", () => {
    const part = { layers: 2, heads: 2, kvHeads: 2, layerNumbers: [4, 5], headNumbers: [6, 1] };
    expect(namesOf([0, 3], part)).toEqual(["L4H6", "L5H1"]);
    expect(headPlace("L5H6", part)).toEqual({ layer: 1, head: 0 });
    expect(headPlace("L1H1", part)).toBeNull();
    expect(sameHeads(part, { ...part })).toBe(true);
    expect(sameHeads(part, { ...part, layerNumbers: null })).toBe(false);
  });
  test("are in the grid's order, and invalid names are ignored", () => {
    expect(namesOf(cellsOf(["L2H0", 3, "L9H9", null, "L0H1"], shape), shape)).toEqual(["L0H1", "L2H0"]);
  });
});
