/** Panels along training: those of one course are the same thing, such as a task, at several steps. */

import type { Panel, Payload } from "./payload";

export interface Courses {
  /** What each course is of, in the order of their first panels. */
  readonly titles: readonly string[];
  /** All steps, ascending; empty where there is no more than one. */
  readonly steps: readonly number[];
  /** The panel of a course at a step, or the nearest one before; its first one where there is none. */
  readonly panel: (course: number, step: number) => number;
  /** Which course a panel belongs to. */
  readonly courseOf: (panel: number) => number;
}

const known = new WeakMap<readonly Panel[], Courses>();

export function coursesOf({ panels }: Pick<Payload, "panels">): Courses {
  const found = known.get(panels) ?? arranged(panels);
  known.set(panels, found);
  return found;
}

function arranged(panels: readonly Panel[]): Courses {
  const members: number[][] = [];
  const titles: string[] = [];
  const places = new Map<string, number>();
  const belongs = panels.map((panel, index) => {
    const key = panel.step === null ? `panel ${index}` : `course ${panel.course}`;
    const course = places.get(key) ?? titles.length;
    if (!places.has(key)) {
      places.set(key, course);
      members.push([]);
      titles.push((panel.step === null ? panel.title : panel.course) || `panel ${index + 1}`);
    }
    members[course]?.push(index);
    return course;
  });
  const all = new Set(panels.flatMap(({ step }) => (step === null ? [] : [step])));
  return {
    titles,
    steps: all.size > 1 ? [...all].sort((a, b) => a - b) : [],
    courseOf: (panel) => belongs[panel] ?? 0,
    panel: (course, step) => {
      const own = members[course] ?? [];
      return own.filter((panel) => (panels[panel]?.step ?? step) <= step).at(-1) ?? own[0] ?? 0;
    },
  };
}

/** The step that a panel stands at; the last one where it has none. */
export function stepOf({ panels }: Pick<Payload, "panels">, panel: number): number {
  return panels[panel]?.step ?? Number.POSITIVE_INFINITY;
}
