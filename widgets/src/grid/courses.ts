/** Panels along training: a course is a subject, such as a task, that is shown at several steps. */

import type { Panel, Payload } from "./payload";

export interface Courses {
  /** Subject of each course, in the order of their first panels. */
  readonly titles: readonly string[];
  /** All steps in ascending order; empty if there is at most one. */
  readonly steps: readonly number[];
  /** The panel of a course at a step, or else at the nearest earlier step, or else its first panel. */
  readonly panel: (course: number, step: number) => number;
  /** The course of a panel. */
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

/** The step of a panel; infinity for a panel without a step. */
export function stepOf({ panels }: Pick<Payload, "panels">, panel: number): number {
  return panels[panel]?.step ?? Number.POSITIVE_INFINITY;
}

/** The panel of the same course as `front` at another place in the steps; null if there is no such step. */
export function panelAt(payload: Pick<Payload, "panels">, front: number, place: number): number | null {
  const { steps, panel, courseOf } = coursesOf(payload);
  const step = steps[place];
  return step === undefined ? null : panel(courseOf(front), step);
}
