/** What of a payload is looked at, and how; and the panels that come of it. */

import type { Spread } from "./colours";
import { type Courses, coursesOf, stepOf } from "./courses";
import type { Kind, Panel, Payload, Scale } from "./payload";
import { difference, sharedScale } from "./statistics";

export interface View {
  /** The panel in front. */
  readonly panel: number;
  /** All panels beside each other, rather than one in front. */
  readonly sideBySide: boolean;
  readonly spread: Spread;
  /** The colour scale that the reader has pinned. */
  readonly pinned: Scale | null;
  /** `[after, before]`: their difference instead of the panels. */
  readonly difference: readonly [number, number] | null;
  readonly groups: boolean;
  readonly distribution: boolean;
}

/** What is drawn: panels of one kind on one scale. */
export interface Shown {
  /** The payload, with the kind, scale, quantity and panels of what is drawn. */
  readonly payload: Payload;
  readonly panels: readonly Panel[];
  readonly view: View;
}

const MOST_SIDE_BY_SIDE = 6;

/** More panels than this are not drawn beside each other: a picture of them all would freeze the page. */
export const MOST_DRAWN = 60;

/** Steps come one at a time with a slider, a few panels without steps beside each other. */
export function firstView(payload: Payload): View {
  const { titles, steps, panel } = coursesOf(payload);
  const several = titles.length > 1 && titles.length <= MOST_SIDE_BY_SIDE;
  return {
    panel: panel(0, steps.at(-1) ?? Number.POSITIVE_INFINITY),
    sideBySide: several && steps.length === 0 && Math.max(payload.layers, payload.heads) <= 64,
    spread: "linear",
    pinned: null,
    difference: null,
    groups: true,
    distribution: false,
  };
}

/** A view after a change of some of it; a pinned scale of levels is none of their differences. */
export function changed(view: View, change: Partial<View>): View {
  const after = { ...view, ...change };
  return Boolean(after.difference) === Boolean(view.difference) ? after : { ...after, pinned: null };
}

/**
 * The same view of another payload, as far as that has what is looked at: a course is found again by its title, a step
 * by its number. Who looks at the last step goes on to the newest; who looks at another stays there.
 */
export function kept(view: View, before: Payload, payload: Payload): View {
  const [old, now] = [coursesOf(before), coursesOf(payload)];
  const sameKind = before.kind === payload.kind;
  const both = view.difference?.map((panel) => movedPanel(panel, before, payload)) ?? [];
  const [after, subtrahend] = both;
  const difference: View["difference"] = after != null && subtrahend != null ? [after, subtrahend] : null;
  return {
    ...view,
    panel: movedPanel(view.panel, before, payload) ?? firstView(payload).panel,
    sideBySide: old.titles.length === now.titles.length ? view.sideBySide : firstView(payload).sideBySide,
    pinned: sameKind && Boolean(difference) === Boolean(view.difference) ? view.pinned : null,
    difference,
  };
}

/** Where a panel of `before` is in `payload`; null where that has no such course. */
function movedPanel(panel: number, before: Payload, payload: Payload): number | null {
  const [old, now] = [coursesOf(before), coursesOf(payload)];
  const course = movedCourse(old.courseOf(panel), old, now);
  if (course === null) return null;
  const step = stepOf(before, panel);
  const newest = step >= (old.steps.at(-1) ?? step);
  return now.panel(course, newest ? Number.POSITIVE_INFINITY : step);
}

function movedCourse(course: number, old: Courses, now: Courses): number | null {
  const title = old.titles[course] ?? "";
  if (now.titles[course] === title) return course;
  const found = now.titles.indexOf(title);
  return found >= 0 ? found : null;
}

export function shown(payload: Payload, view: View): Shown {
  const between = differenceOf(payload, view);
  if (between) {
    const kind: Kind = "difference";
    const scale = view.pinned ?? sharedScale([between], kind);
    const quantity = `change in ${payload.quantity || "score"}, ${between.title}`;
    return { payload: { ...payload, kind, scale, quantity, panels: [between] }, panels: [between], view };
  }
  const { titles, panel } = coursesOf(payload);
  const step = stepOf(payload, view.panel);
  const chosen = view.sideBySide
    ? titles.slice(0, MOST_DRAWN).map((_, course) => panel(course, step))
    : [view.panel];
  const panels = chosen.flatMap((index) => payload.panels[index] ?? []);
  return { payload: { ...payload, scale: view.pinned ?? payload.scale }, panels, view };
}

function differenceOf(payload: Payload, { difference: chosen }: View): Panel | null {
  const after = chosen && payload.panels[chosen[0]];
  const before = chosen && payload.panels[chosen[1]];
  return after && before ? difference(after, before) : null;
}
