import { describe, expect, test } from "vitest";
import { coursesOf } from "../src/grid/courses";
import { picture } from "../src/grid/picture";
import { sceneAsSvg } from "../src/grid/svg";
import { changed, firstView, keepView, linesOf, partsOf, shown } from "../src/grid/view";
import { panel, payload } from "./made";

const theme = { ink: "#222222", page: "#ffffff", font: "sans-serif" };
const two = [panel([1, 2], { title: "a" }), panel([4, 1], { title: "b" })];
const tasks = payload(1, 2, two, { dimension: "task" });
const along = (values: number[], step: number, course = "") =>
  panel(values, { title: `step ${step} · ${course}`, step, course });
const steps = payload(1, 2, [along([1, 2], 0), along([4, 1], 20)]);
const study = (...numbers: number[]) =>
  payload(
    1,
    2,
    numbers.flatMap((step) => ["gsm8k", "mbpp"].map((task) => along([step, 1], step, task))),
  );

describe("the initial view shows", () => {
  test("one panel, a few tasks side by side, or the last step", () => {
    expect(firstView(payload(1, 2, [panel([1, 2])])).sideBySide).toBe(false);
    expect(firstView(tasks)).toMatchObject({ sideBySide: true, panel: 0 });
    expect(firstView(steps)).toMatchObject({ sideBySide: false, panel: 1 });
  });
  test("many panels one at a time", () => {
    const many = payload(
      1,
      2,
      Array.from({ length: 7 }, () => panel([1, 2])),
    );
    expect(firstView(many).sideBySide).toBe(false);
  });
});

describe("a difference", () => {
  test("has the two chosen panels, diverging colours and its own scale", () => {
    const found = shown(tasks, { ...firstView(tasks), difference: [1, 0] });
    expect([...(found.panels[0]?.values ?? [])]).toEqual([3, -1]);
    expect(found.payload).toMatchObject({ kind: "difference", scale: { low: -3, high: 3 } });
    expect(found.payload.quantity).toBe("change in activation level, b − a");
  });
  test("unpins the scale when it is switched on or off", () => {
    const pinned = { ...firstView(tasks), pinned: { low: 0, high: 1 } };
    expect(changed(pinned, { spread: "rank" }).pinned).not.toBeNull();
    expect(changed(pinned, { difference: [1, 0] }).pinned).toBeNull();
  });
  test("keeps a pinned scale", () => {
    const pinned = { low: -9, high: 9 };
    expect(shown(tasks, { ...firstView(tasks), difference: [1, 0], pinned }).payload.scale).toEqual(pinned);
  });
});

describe("the lines about a head", () => {
  const lines = (found: typeof tasks, place: number) => {
    const all = shown(found, firstView(found));
    const at = all.panels[place];
    return at ? linesOf(all, at, 1).slice(0, 2) : [];
  };
  test("name the panel if several are shown", () => {
    expect(lines(tasks, 0)).toEqual(["L0H1  2.000 nats", "a"]);
    expect(lines(tasks, 1)).toEqual(["L0H1  1.000 nats", "b"]);
  });
  test("name no panel if only one is shown", () => {
    expect(lines(payload(1, 2, [panel([1, 2], { title: "a" })]), 0)).toEqual([
      "L0H1  2.000 nats",
      "rank 1 of 2",
    ]);
  });
});

describe("a new payload in an existing view", () => {
  test("keeps the view settings", () => {
    const view = { ...firstView(tasks), spread: "rank" as const, sideBySide: false, panel: 1 };
    expect(keepView(view, tasks, tasks)).toEqual(view);
  });
  test("follows the newest step, but stays at an earlier step", () => {
    const longer = payload(1, 2, [...steps.panels, along([5, 5], 40)]);
    expect(keepView(firstView(steps), steps, longer).panel).toBe(2);
    expect(keepView({ ...firstView(steps), panel: 0 }, steps, longer).panel).toBe(0);
  });
  test("drops settings that do not apply to it", () => {
    const one = payload(1, 2, [panel([1, 2])]);
    const view = { ...firstView(tasks), panel: 1, difference: [1, 0] as const };
    expect(keepView(view, tasks, one)).toMatchObject({ panel: 0, difference: null, sideBySide: false });
  });
  test("of another kind drops a pinned scale", () => {
    const change = payload(1, 2, two, { kind: "difference" });
    expect(keepView({ ...firstView(tasks), pinned: { low: 0, high: 1 } }, tasks, change).pinned).toBeNull();
  });
});

describe("a study of tasks along steps", () => {
  test("has its tasks as courses, separate from its steps", () => {
    const { titles, steps: found, panel: at, courseOf } = coursesOf(study(0, 10, 20));
    expect([titles, found]).toEqual([
      ["gsm8k", "mbpp"],
      [0, 10, 20],
    ]);
    expect([at(1, 10), at(1, 15), at(0, 99), courseOf(3)]).toEqual([3, 3, 4, 1]);
  });
  test("starts with the first task at the last step, and side by side shows all tasks of one step", () => {
    const found = study(0, 10);
    expect(firstView(found)).toMatchObject({ panel: 2, sideBySide: false });
    const drawn = shown(found, { ...firstView(found), panel: 1, sideBySide: true });
    expect(drawn.panels.map(({ step, course }) => [step, course])).toEqual([
      [0, "gsm8k"],
      [0, "mbpp"],
    ]);
  });
  test("that grows keeps the task and follows the newest step, unless an earlier step is shown", () => {
    const [before, after] = [study(0, 10), study(0, 10, 20)];
    const at = (panel: number) =>
      after.panels[keepView({ ...firstView(before), panel }, before, after).panel];
    expect(at(3)).toMatchObject({ course: "mbpp", step: 20 });
    expect(at(1)).toMatchObject({ course: "mbpp", step: 0 });
  });
  test("with fewer steps goes to the nearest earlier step, and finds a task in another order", () => {
    const [before, after] = [study(0, 10, 20), study(0, 20)];
    const turned = payload(1, 2, [...after.panels].reverse());
    expect(after.panels[keepView({ ...firstView(before), panel: 3 }, before, after).panel]).toMatchObject({
      course: "mbpp",
      step: 0,
    });
    const found = turned.panels[keepView({ ...firstView(before), panel: 5 }, before, turned).panel];
    expect(found?.course).toBe("mbpp");
  });
  test("keeps a difference of its steps, which follows the newest step", () => {
    const [before, after] = [study(0, 10), study(0, 10, 20)];
    const view = { ...firstView(before), difference: [2, 0] as const };
    expect(keepView(view, before, after).difference).toEqual([4, 0]);
  });
});

describe("the picture", () => {
  const drawn = (fields: object) => {
    const found = payload(1, 2, [panel([1, 2], { title: "a" })], fields);
    return sceneAsSvg(picture(shown(found, firstView(found)), theme, 600).scene, theme, "<b>&");
  };
  test("as SVG has all names as text, never as markup", () => {
    const evil = '<script>alert(1)</script>"\u0007';
    const svg = drawn({ quantity: evil, units: "]]>" });
    for (const raw of ["<script", "<b>", "\u0007"]) expect(svg).not.toContain(raw);
    expect(svg).toContain("&lt;script&gt;alert(1)&lt;/script&gt;&quot;\ufffd");
  });
  test("truncates labels that are too long", () => {
    const one = payload(1, 2, [panel([1, 2])], { quantity: "change ".repeat(40) });
    const svg = sceneAsSvg(
      picture(shown(one, { ...firstView(one), distribution: true }), theme, 600).scene,
      theme,
      "",
    );
    const long = [...svg.matchAll(/<text[^>]*>([^<]{40,})</g)].map(([, words]) => words ?? "");
    expect(long).toHaveLength(2);
    for (const words of long)
      expect(words).toMatch(/^(number of heads per bin \(max 1\) by )?change .{30,60}…$/);
  });
  test("labels the rows and columns of a selection with the model's numbers", () => {
    const words = [...drawn({ layerNumbers: [4], headNumbers: [61, 7] }).matchAll(/<text[^>]*>(\d+)</g)];
    expect(words.map(([, number]) => number)).toEqual(expect.arrayContaining(["4", "61", "7"]));
  });
  test("has two heads in two colours, and no cell for a missing head", () => {
    const fills = (svg: string) => new Set(svg.match(/d="[^"]*" fill="#(440154|fde725|[0-9a-f]{6})"/g));
    expect(fills(drawn({})).size).toBeGreaterThan(1);
    const missing = payload(1, 2, [panel([Number.NaN, Number.NaN])]);
    const scene = picture(shown(missing, firstView(missing)), theme, 600).scene;
    expect(sceneAsSvg(scene, theme, "")).toContain("no softmax heads");
  });
  test("does not call the heads of a task that has not begun missing", () => {
    const progress = { done: 3, total: 8, unit: "samples", message: "" };
    const waiting = payload(1, 2, [panel([1, 2]), panel([Number.NaN, Number.NaN])], { progress });
    const found = { ...firstView(waiting), sideBySide: true };
    expect(sceneAsSvg(picture(shown(waiting, found), theme, 600).scene, theme, "")).not.toContain("softmax");
  });
});

describe("steps that carry their change", () => {
  const own = {
    units: "nats",
    kind: "difference" as const,
    scale: { low: -5, high: 5 },
    quantity: "change in activation level",
  };
  const changing = (values: number[], step: number, change: number[]) =>
    panel(values, {
      ...{ title: `step ${step}`, step },
      change: panel(change, {
        own,
        significant: Float64Array.from([1, 0]),
        reliabilityLine: "Reliability 0.87",
      }),
    });
  const first = changing([1, 2], 0, [0, 0]);
  const trained = payload(1, 2, [first, changing([3, 2], 10, [2, 0]), changing([6, 1], 20, [5, -1])]);
  const titles = (panelIndex: number) =>
    shown(trained, { ...firstView(trained), panel: panelIndex }).panels.map(({ title }) => title);
  const svg = (width: number) =>
    sceneAsSvg(picture(shown(trained, firstView(trained)), theme, width).scene, theme, "");

  test("are shown as before, after and difference of the chosen step", () => {
    expect(firstView(trained)).toMatchObject({ compared: true, panel: 2 });
    expect(titles(2)).toEqual(["before (step 0)", "after (step 20)", "difference (step 20 − step 0)"]);
    expect(titles(1)).toEqual(["before (step 0)", "after (step 10)", "difference (step 10 − step 0)"]);
    expect(titles(0)).toHaveLength(3); // the layout stays the same along the slider
  });
  test("have two scales: one for the levels and a diverging one for the difference", () => {
    const [levels, differences] = partsOf(shown(trained, firstView(trained)));
    expect(levels?.payload).toMatchObject({ kind: "level", scale: { low: 0, high: 6 } });
    expect(differences?.payload).toMatchObject(own);
    expect([levels?.panels.length, differences?.panels.length]).toEqual([2, 1]);
  });
  test.each([400, 1100])("have two legends, also at a width of %s", (width) => {
    for (const name of [">activation level (nats)<", ">change in activation level (nats)<"]) {
      expect(svg(width)).toContain(name);
    }
    expect(svg(width)).toContain("● significant");
  });
  test("are shown one at a time without the comparison, or while there is a single step", () => {
    expect(shown(trained, { ...firstView(trained), compared: false }).panels).toHaveLength(1);
    const single = payload(1, 2, [first]);
    expect(shown(single, firstView(single)).panels).toEqual([first]);
  });
  test("that arrive during training are compared, unless the reader turned it off", () => {
    const levels = payload(1, 2, [panel([1, 2])]);
    expect(keepView(firstView(levels), levels, trained).compared).toBe(true);
    expect(keepView({ ...firstView(trained), compared: false }, trained, trained).compared).toBe(false);
  });
});
