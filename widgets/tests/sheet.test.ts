import { describe, expect, test } from "vitest";
import type { Payload } from "../src/grid/payload";
import { picture } from "../src/grid/picture";
import { wrapped } from "../src/grid/scene";
import { sheet } from "../src/grid/sheet";
import { sceneAsSvg } from "../src/grid/svg";
import { firstView, shown, type View } from "../src/grid/view";
import { fileName } from "../src/view/save";
import { panel, payload } from "./made";

const theme = { ink: "#222222", page: "#ffffff", font: "sans-serif" };

/** The lines of text of a saved picture. */
function saved(found: Payload, change: Partial<View> = {}): string[] {
  const drawn = picture(shown(found, { ...firstView(found), ...change }), theme, 600);
  const svg = sceneAsSvg(sheet(drawn, theme), theme, "");
  return [...svg.matchAll(/<text[^>]*>([^<]*)</g)].map(([, words]) => words ?? "");
}

describe("a saved picture", () => {
  const tasks = [panel([1, 2], { title: "gsm8k" }), panel([4, 1], { title: "mbpp" })];
  const several = payload(1, 2, tasks, { title: "tiny" });

  test("of one of several panels has its title", () => {
    expect(saved(several, { sideBySide: false, panel: 1 })[0]).toBe("tiny · mbpp");
    expect(saved(several, { difference: [1, 0] })[0]).toBe("tiny · mbpp − gsm8k");
    expect(saved(several, { sideBySide: true })[0]).toBe("tiny");
    expect(saved(payload(1, 2, tasks.slice(0, 1), { title: "tiny" }))[0]).toBe("tiny");
  });
  test("has the text that is next to it on the page", () => {
    const notes = ["Stopped early: 30 of 64 samples are scored.", "Truncated: 1 sample(s)."];
    const one = panel([1, Number.NaN], { significant: Float64Array.of(1, 0), notes });
    const progress = { done: 30, total: 64, unit: "samples", message: "" };
    const words = saved(payload(2, 1, [one], { kind: "difference", alpha: 0.05, progress }));
    expect(words).toEqual(
      expect.arrayContaining([
        ...notes,
        "1 of 1 heads changed significantly (q &lt; 0.05).",
        "Layer 1 is hatched: it has no softmax attention heads.",
        "30 of 64 samples done.",
      ]),
    );
  });
  test("of several panels has their notes with the panels' titles", () => {
    const stopped = { ...several, panels: tasks.map((one) => ({ ...one, notes: ["Truncated."] })) };
    expect(saved(stopped)).toEqual(expect.arrayContaining(["gsm8k: Truncated.", "mbpp: Truncated."]));
  });
  test("of a difference chosen by the reader names the function that tests it", () => {
    const words = saved(several, { difference: [1, 0] }).join(" ");
    expect(words).toContain(
      "Reliability not available: headnb.compare(before, after) tests which heads changed",
    );
    expect(words.match(/Reliability/g)).toHaveLength(1);
  });
  test("wraps long text", () => {
    const note = "so many words ".repeat(40).trim();
    const words = saved(payload(1, 2, [panel([1, 2], { notes: [note] })]));
    expect(words.join(" ")).toContain(note);
    expect(Math.max(...words.map((line) => line.length))).toBeLessThan(140);
  });
});

test("text is wrapped between words, and within a word that is too long", () => {
  expect(wrapped("one two three", 57, 10)).toEqual(["one two", "three"]);
  expect(wrapped("abcdefghijklm no", 57, 10)).toEqual(["abcdefghij", "klm no"]);
  expect(wrapped("", 57, 10)).toEqual([""]);
});

test("a file name has the panel's title, in characters that every system accepts", () => {
  expect(fileName("tiny · gsm8k", "step 20")).toBe("tiny-gsm8k-step-20");
  expect(fileName("tiny", "")).toBe("tiny");
  expect(fileName("…", "")).toBe("heads");
  expect(fileName("x".repeat(300), "step 20")).toMatch(/^x{80}-step-20$/);
});
