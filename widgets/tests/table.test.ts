import { describe, expect, test } from "vitest";
import { asCsv, asTabs, tableRows } from "../src/grid/table";
import { firstView, shown } from "../src/grid/view";
import { order } from "../src/view/sortable";
import { panel, payload } from "./made";

describe("the table of a grid", () => {
  test("has one row per head with its value, interval and significance", () => {
    const one = panel([0.1, Number.NaN], {
      low: Float64Array.of(0.05, Number.NaN),
      high: Float64Array.of(0.2, Number.NaN),
      significant: Float64Array.of(1, 0),
    });
    const found = payload(1, 2, [one], { headNumbers: [3, 7] });
    expect(asCsv(tableRows(shown(found, firstView(found))))).toBe(
      "name,layer,head,value,low,high,significant,units\nL0H3,0,3,0.1,0.05,0.2,1,nats\nL0H7,0,7,,,,0,nats\n",
    );
  });
  test("of several panels begins with their titles, which are no formulas", () => {
    const panels = [panel([-1], { title: '=1+1,"x"' }), panel([2e-9], { title: "a\tb" })];
    const found = payload(1, 1, panels, { units: "", kind: "signed" });
    const rows = tableRows(shown(found, { ...firstView(found), sideBySide: true }));
    expect(asCsv(rows)).toBe('panel,name,layer,head,value\n"\'=1+1,""x""",L0H0,0,0,-1\na\tb,L0H0,0,0,2e-9\n');
    expect(asTabs(rows).split("\n")[2]).toBe("a b\tL0H0\t0\t0\t2e-9");
  });
  test("has no digits of a float32 beyond its precision", () => {
    const found = payload(1, 1, [panel([Math.fround(0.01234)])], { units: "" });
    expect(tableRows(shown(found, firstView(found)))[1]).toEqual(["L0H0", "0", "0", "0.01234"]);
  });
});

describe("the order of a sorted table", () => {
  test("has missing values last in both directions", () => {
    const keys = [0.12, Number.NaN, -3, 0.5];
    expect(order(keys, "ascending")).toEqual([2, 0, 3, 1]);
    expect(order(keys, "descending")).toEqual([3, 0, 2, 1]);
  });
  test("keeps the order of equal keys", () => {
    expect(order([1, 0, 1, 0], "descending")).toEqual([0, 2, 1, 3]);
    expect(order([1, 0, 1, 0], "ascending")).toEqual([1, 3, 0, 2]);
  });
});
