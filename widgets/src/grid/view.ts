/** What of a payload is looked at, and how; and the panels that come of it. */

import type { Spread } from "./colours";
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

/** Panels of steps come one at a time with a slider, a few others beside each other. */
export function firstView(payload: Payload): View {
  const several = payload.panels.length > 1 && payload.panels.length <= MOST_SIDE_BY_SIDE;
  return {
    panel: isTrajectory(payload) ? payload.panels.length - 1 : 0,
    sideBySide: several && !isTrajectory(payload) && Math.max(payload.layers, payload.heads) <= 64,
    spread: "linear",
    pinned: null,
    difference: null,
    groups: true,
    distribution: false,
  };
}

/** Panels in an order that a slider can go through. */
export function isTrajectory(payload: Payload): boolean {
  return payload.dimension === "step" && payload.panels.length > 1;
}

/** A view after a change of some of it; a pinned scale of levels is none of their differences. */
export function changed(view: View, change: Partial<View>): View {
  const after = { ...view, ...change };
  return Boolean(after.difference) === Boolean(view.difference) ? after : { ...after, pinned: null };
}

/** The same view of another payload, as far as that has what is looked at. */
export function kept(view: View, before: Payload, payload: Payload): View {
  const panels = payload.panels.length;
  const first = firstView(payload);
  const sameKind = before.kind === payload.kind;
  const both = view.difference?.every((panel) => panel < panels) ? view.difference : null;
  const atEnd = isTrajectory(payload) && view.panel === before.panels.length - 1;
  return {
    ...view,
    panel: view.panel < panels && !atEnd ? view.panel : first.panel,
    sideBySide: before.panels.length === panels ? view.sideBySide : first.sideBySide,
    pinned: sameKind && both === view.difference ? view.pinned : null,
    difference: both,
  };
}

export function shown(payload: Payload, view: View): Shown {
  const between = differenceOf(payload, view);
  if (between) {
    const kind: Kind = "difference";
    const scale = view.pinned ?? sharedScale([between], kind);
    const quantity = `change in ${payload.quantity || "score"}, ${between.title}`;
    return { payload: { ...payload, kind, scale, quantity, panels: [between] }, panels: [between], view };
  }
  const front = payload.panels[view.panel];
  const panels = view.sideBySide || !front ? payload.panels.slice(0, MOST_DRAWN) : [front];
  return { payload: { ...payload, scale: view.pinned ?? payload.scale }, panels, view };
}

function differenceOf(payload: Payload, { difference: chosen }: View): Panel | null {
  const after = chosen && payload.panels[chosen[0]];
  const before = chosen && payload.panels[chosen[1]];
  return after && before ? difference(after, before) : null;
}
