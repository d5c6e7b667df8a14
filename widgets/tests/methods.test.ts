import { describe, expect, test } from "vitest";
import { tableRows } from "../src/grid/table";
import { firstView, partsOf, shown } from "../src/grid/view";
import { panel, payload } from "./made";

describe("panels of several methods", () => {
  const entropy = {
    kind: "level" as const,
    scale: { low: 0, high: 4 },
    quantity: "entropy",
    units: "nats of attention",
  };
  const found = payload(2, 2, [
    panel([1, 2, 3, 4]),
    panel([1, 2, 3, 4], { own: entropy }),
    panel([4, 3, 2, 1]),
  ]);
  const view = { ...firstView(found), sideBySide: true };

  test("have one colour scale for each unit", () => {
    const parts = partsOf(shown(found, view));
    expect(parts.map(({ panels }) => panels.length)).toEqual([2, 1]);
    expect(parts[1]?.payload).toMatchObject({ units: "nats of attention", scale: { low: 0, high: 4 } });
  });

  test("have a difference only if their units are equal", () => {
    const between = (after: number) => shown(found, { ...view, difference: [after, 0] }).payload.kind;
    expect(between(2)).toBe("difference");
    expect(between(1)).toBe("level");
  });

  test("have their own units in a table", () => {
    const units = tableRows(shown(found, view)).map((row) => row.at(-1));
    expect([...new Set(units)]).toEqual(["units", "nats", "nats of attention"]);
  });
});
