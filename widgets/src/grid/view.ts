/** View settings of a payload, and the panels that they show. */

import type { Spread } from "./colours";
import { type Courses, coursesOf, stepOf } from "./courses";
import { placeOf } from "./heads";
import type { Kind, Panel, Payload, Scale } from "./payload";
import { difference, sharedScale } from "./statistics";
import { headLines } from "./words";

export interface View {
  /** Index of the panel in front. */
  readonly panel: number;
  /** Whether all panels are shown side by side, rather than only the one in front. */
  readonly sideBySide: boolean;
  readonly spread: Spread;
  /** Colour scale that the reader has pinned. */
  readonly pinned: Scale | null;
  /** `[after, before]`: the two panels whose difference is shown instead of the panels. */
  readonly difference: readonly [number, number] | null;
  /** Whether a panel that carries its change is shown as before, after and difference. */
  readonly compared: boolean;
  readonly groups: boolean;
  readonly distribution: boolean;
  /** Names of the roles that the reader has chosen: heads without any of them are dimmed. Empty: none is dimmed. */
  readonly roles: readonly string[];
}

/** The panels that are drawn, on one scale apart from those with their own. */
export interface Shown {
  /** The payload with the kind, scale, quantity and panels that are drawn. */
  readonly payload: Payload;
  readonly panels: readonly Panel[];
  readonly view: View;
}

const MOST_SIDE_BY_SIDE = 6;

/** Maximum number of panels side by side; more would freeze the page. */
export const MOST_DRAWN = 60;

/** The initial view: one step at a time for steps, side by side for a few panels without steps. */
export function firstView(payload: Payload): View {
  const { titles, steps, panel } = coursesOf(payload);
  const several = titles.length > 1 && titles.length <= MOST_SIDE_BY_SIDE;
  return {
    panel: panel(0, steps.at(-1) ?? Number.POSITIVE_INFINITY),
    sideBySide: several && steps.length === 0 && Math.max(payload.layers, payload.heads) <= 64,
    spread: "linear",
    pinned: null,
    difference: null,
    compared: hasChanges(payload),
    groups: true,
    distribution: false,
    roles: [],
  };
}

/** Whether the panels carry their changes since the first step. */
export function hasChanges({ panels }: Pick<Payload, "panels">): boolean {
  return panels.some(({ change }) => change !== null);
}

/** A view after a change. The scale is unpinned if the change switches between levels and differences. */
export function changed(view: View, change: Partial<View>): View {
  const after = { ...view, ...change };
  return Boolean(after.difference) === Boolean(view.difference) ? after : { ...after, pinned: null };
}

/**
 * The view of a new payload that keeps the settings of the old one as far as possible: a course keeps its title, a step
 * its number. A view of the last step follows the newest step; a view of an earlier step stays there.
 */
export function keepView(view: View, before: Payload, payload: Payload): View {
  const [old, now] = [coursesOf(before), coursesOf(payload)];
  const sameKind = before.kind === payload.kind;
  const both = view.difference?.map((panel) => movedPanel(panel, before, payload)) ?? [];
  const [after, subtrahend] = both;
  const difference: View["difference"] = after != null && subtrahend != null ? [after, subtrahend] : null;
  return {
    ...view,
    panel: movedPanel(view.panel, before, payload) ?? firstView(payload).panel,
    sideBySide: old.titles.length === now.titles.length ? view.sideBySide : firstView(payload).sideBySide,
    ...(!hasChanges(before) && hasChanges(payload) ? { compared: true, distribution: false } : {}),
    pinned: sameKind && Boolean(difference) === Boolean(view.difference) ? view.pinned : null,
    difference,
  };
}

/** The index in `payload` of a panel of `before`; null if `payload` does not have its course. */
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
  const index = now.titles.indexOf(title);
  return index >= 0 ? index : null;
}

export function shown(payload: Payload, view: View): Shown {
  const between = differenceOf(payload, view);
  if (between) {
    const kind: Kind = "difference";
    const scale = view.pinned ?? sharedScale([between], kind);
    const own = view.difference && payload.panels[view.difference[0]]?.own;
    const { units, quantity: name } = own ?? payload;
    const quantity = `change in ${name || "score"}, ${between.title}`;
    return {
      payload: { ...payload, kind, scale, quantity, units, panels: [between] },
      panels: [between],
      view,
    };
  }
  const whole = { ...payload, scale: view.pinned ?? payload.scale };
  const compared = view.compared ? beforeAndAfter(payload, view.panel) : [];
  if (compared.length) return { payload: whole, panels: compared, view };
  const { titles, panel } = coursesOf(payload);
  const step = stepOf(payload, view.panel);
  const chosen = view.sideBySide
    ? titles.slice(0, MOST_DRAWN).map((_, course) => panel(course, step))
    : [view.panel];
  const panels = chosen.flatMap((index) => payload.panels[index] ?? []);
  return { payload: whole, panels, view };
}

/** The first step of a panel's course, the panel, and its change; empty for a single step or without a change. */
function beforeAndAfter(payload: Payload, index: number): Panel[] {
  const { steps, panel, courseOf } = coursesOf(payload);
  const after = payload.panels[index];
  const before = payload.panels[panel(courseOf(index), Number.NEGATIVE_INFINITY)];
  if (!after?.change || !before || steps.length === 0) return [];
  const titled = (one: Panel, name: string) => ({ ...one, title: `${name} (step ${one.step})` });
  const title = `difference (step ${after.step} − step ${before.step})`;
  return [titled(before, "before"), titled(after, "after"), { ...after.change, title }];
}

/** What is shown as it applies to one panel, which may have its own kind, scale, quantity and units. */
export function ofPanel(shown: Shown, panel: Panel): Shown {
  return panel.own ? { ...shown, payload: { ...shown.payload, ...panel.own } } : shown;
}

/** Lines about a cell of a panel; with several panels, the second line is the title of this one. */
export function linesOf(shown: Shown, panel: Panel, cell: number): string[] {
  const { payload } = ofPanel(shown, panel);
  const [first = "", ...others] = headLines(payload, panel, placeOf(cell, payload));
  return shown.panels.length > 1 && panel.title ? [first, panel.title, ...others] : [first, ...others];
}

/** What is shown in parts that have one kind, scale and units. */
export function partsOf(shown: Shown): Shown[] {
  const parts = new Map<string, Shown & { readonly panels: Panel[] }>();
  for (const panel of shown.panels) {
    const { payload, view } = ofPanel(shown, panel);
    const key = scaleKey(payload);
    const part = parts.get(key) ?? { payload, view, panels: [] };
    part.panels.push(panel);
    parts.set(key, part);
  }
  return [...parts.values()];
}

/** Kind and units: panels that are equal in both share a colour scale. */
function scaleKey({ kind, units }: Pick<Payload, "kind" | "units">): string {
  return JSON.stringify([kind, units]);
}

function differenceOf(payload: Payload, { difference: chosen }: View): Panel | null {
  const after = chosen && payload.panels[chosen[0]];
  const before = chosen && payload.panels[chosen[1]];
  const comparable = after && before && scaleKey(after.own ?? payload) === scaleKey(before.own ?? payload);
  return comparable ? difference(after, before) : null;
}
