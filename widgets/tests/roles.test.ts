import { describe, expect, test } from "vitest";
import type { Role } from "../src/grid/payload";
import { picture } from "../src/grid/picture";
import { readPayload } from "../src/grid/reading";
import { markedRoles, rolesLine, rolesOf } from "../src/grid/roles";
import type { Mark } from "../src/grid/scene";
import { sceneAsSvg } from "../src/grid/svg";
import { firstView, shown } from "../src/grid/view";
import { headLines } from "../src/grid/words";
import { fixture } from "./fixtures";
import { panel, payload } from "./made";

const theme = { ink: "#222222", page: "#fefefe", font: "sans-serif" };
const role = (name: string, threshold: number, scores: [number, number][]): Role => ({
  name,
  threshold,
  scores: new Map(scores),
});
const induction = role("induction", 0.4, [[0, 0.834]]);
const sink = role("sink", 0.3, [
  [0, 0.5],
  [2, 0.31],
  [3, 0.9],
]);
const marked = payload(2, 2, [panel([1, 2, 3, 4])], { roles: [induction, sink] });
const view = firstView(marked);

function drawn(roles: readonly string[], width = 600, given = marked) {
  return picture(shown(given, { ...view, roles }), theme, width).scene;
}

function flat(marks: readonly Mark[]): Mark[] {
  return marks.flatMap((mark) => (mark.mark === "group" ? flat(mark.marks) : [mark]));
}

function letters(roles: readonly string[]): string[] {
  return flat(drawn(roles).marks).flatMap((mark) => (mark.mark === "label" && mark.halo ? [mark.words] : []));
}

function veils(roles: readonly string[]): number[] {
  return flat(drawn(roles).marks).flatMap((mark) =>
    mark.mark === "rects" && mark.fill === theme.page ? [mark.boxes.length / 4] : [],
  );
}

test("roles of a file are read; a file without roles has none", () => {
  const [first, second] = readPayload(fixture("valid/roles")).roles;
  expect(first).toMatchObject({ name: "induction", threshold: 0.4 });
  expect([...(first?.scores ?? [])]).toEqual([
    [0, 0.83],
    [2, 0.5],
  ]);
  expect(second?.scores.size).toBe(0);
  expect(readPayload(fixture("valid/minimal")).roles).toEqual([]);
});

describe("marks", () => {
  test("without a choice a role of most heads has no letters, and no head is dimmed", () => {
    expect(letters([])).toEqual(["I"]);
    expect(veils([])).toEqual([]);
  });
  test("chosen roles have letters, and the heads without them are dimmed", () => {
    expect(letters(["sink"])).toEqual(["S", "S", "S"]);
    expect(veils(["sink"])).toEqual([1]);
    expect(letters(["induction", "sink"])).toEqual(["IS", "S", "S"]);
    expect(veils(["induction"])).toEqual([3]);
  });
  test("small cells have squares instead of letters", () => {
    const heads = 200;
    const large = payload(1, heads, [panel(Array.from({ length: heads }, () => 1))], { roles: [induction] });
    const marks = flat(drawn([], 300, large).marks);
    expect(marks.some((mark) => mark.mark === "label" && mark.halo)).toBe(false);
    const squares = marks.filter((mark) => mark.mark === "rects" && mark.fill === "#ffffff");
    expect(squares).toMatchObject([{ boxes: { length: 4 } }]);
  });
  test("the saved picture has outlined letters", () => {
    expect(sceneAsSvg(drawn([]), theme, "")).toMatch(/stroke="#000000"[^>]*paint-order="stroke"[^>]*>I</);
  });
});

describe("text", () => {
  test("a head's lines name its roles with their scores", () => {
    const lines = headLines(marked, panel([1, 2, 3, 4]), { layer: 0, head: 0 });
    expect(lines.slice(-2)).toEqual(["induction 0.83", "sink 0.50"]);
    expect(rolesOf(marked, 1)).toEqual([]);
  });
  test("the line below the grid explains the letters, and what is not marked", () => {
    const all = "Head roles: I induction (1 above 0.4), S sink (3 above 0.3).";
    expect(rolesLine(shown(marked, view))).toBe(
      `${all} Most heads are sink heads; choose sink in Options to mark them.`,
    );
    expect(rolesLine(shown(marked, { ...view, roles: ["sink"] }))).toBe(all);
    expect(markedRoles(shown(marked, { ...view, roles: ["sink"] }))).toEqual([sink]);
    expect(rolesLine(shown({ ...marked, roles: [] }, view))).toBe("");
  });
});
