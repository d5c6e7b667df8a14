/** Drawer of options: colours, colour scale, panels shown, difference of two panels, and quick selections. */

import { SPREADS, type Spread } from "../grid/colours";
import { coursesOf } from "../grid/courses";
import type { Payload, Scale } from "../grid/payload";
import { letter } from "../grid/roles";
import { hasChanges, type Shown, type View } from "../grid/view";
import { button, element, field, show } from "./dom";
import { PanelChoice } from "./panel-choice";

const SPREAD_NAMES: Record<Spread, string> = { linear: "linear", rank: "rank", layer: "per layer" };
const TOP = 10;

export interface OptionEvents {
  readonly change: (view: Partial<View>) => void;
  readonly selectTop: (count: number) => void;
  readonly selectSignificant: () => void;
  readonly selectBetween: (low: number, high: number) => void;
}

let groups = 0;

export class Options {
  private readonly spreads = new Map<Spread, HTMLInputElement>();
  private readonly low = field("from ", number("Lower end of the colour scale"), () => this.pin());
  private readonly high = field("to ", number("Upper end of the colour scale"), () => this.pin());
  private readonly pinned = field("pinned", { type: "checkbox" }, (box) =>
    box.checked ? this.pin() : this.unpin(),
  );
  private readonly scale = element(
    "span",
    {},
    name("Scale"),
    this.low.node,
    this.high.node,
    this.pinned.node,
  );
  private readonly side = this.flag("side by side", (sideBySide) => ({
    sideBySide,
    compared: false,
    difference: null,
    pinned: null,
  }));
  private readonly compared = this.flag("before, after and difference", (compared) => ({
    compared,
    difference: null,
  }));
  private readonly kvGroups = this.flag("key/value groups", (on) => ({ groups: on }));
  private readonly distribution = this.flag("distribution", (on) => ({ distribution: on }));
  private readonly differs = this.flag("difference", (on) => ({
    difference: on ? this.pair() : null,
    pinned: null,
  }));
  private readonly after = new PanelChoice("Panel", () => this.chooseDifference());
  private readonly before = new PanelChoice("minus panel", () => this.chooseDifference());
  private readonly roleFields = new Map<string, HTMLInputElement>();
  private readonly roles = element("span", { role: "group", "aria-label": "Highlight heads by role" });
  private readonly both = element("span", {}, this.differs.node, this.after.node, "minus", this.before.node);
  private readonly significant: HTMLButtonElement;
  private shown: Shown | null = null;

  constructor(
    drawer: HTMLElement,
    private readonly events: OptionEvents,
  ) {
    const spreads = element("span", { role: "radiogroup", "aria-label": "Colours" }, name("Colours"));
    const shared = `headnb-colours-${groups++}`;
    for (const spread of SPREADS) {
      const radio = field(SPREAD_NAMES[spread], { type: "radio", name: shared }, () =>
        events.change({ spread }),
      );
      this.spreads.set(spread, radio.input);
      spreads.append(radio.node);
    }
    this.significant = button("significant", events.selectSignificant);
    const top = button(`top ${TOP}`, () => events.selectTop(TOP));
    const least = field("values from ", number("Lowest value to select"), () => undefined);
    const most = field("to ", number("Highest value to select"), () => undefined);
    const between = button("select", () => events.selectBetween(...range(least.input, most.input)), {
      "aria-label": "Select the heads with these values",
    });
    const draw = element(
      "span",
      {},
      name("Show"),
      this.side.node,
      this.compared.node,
      this.kvGroups.node,
      this.distribution.node,
    );
    drawer.append(
      spreads,
      this.scale,
      draw,
      this.both,
      this.roles,
      element("span", {}, name("Select"), top, this.significant, least.node, most.node, between),
    );
  }

  refresh(whole: Payload, shown: Shown): void {
    this.shown = shown;
    const { view, payload } = shown;
    for (const [spread, input] of this.spreads) input.checked = spread === view.spread;
    const several = whole.panels.length > 1;
    show(this.scale, view.spread === "linear");
    show(this.low.node, payload.kind === "level");
    this.low.input.value = String(payload.scale.low);
    this.high.input.value = String(payload.scale.high);
    this.pinned.input.checked = view.pinned !== null;
    show(this.side.node, coursesOf(whole).titles.length > 1);
    this.side.input.checked = view.sideBySide && !view.difference && !view.compared;
    show(this.compared.node, hasChanges(whole));
    this.compared.input.checked = view.compared && !view.difference;
    show(this.kvGroups.node, payload.kvHeads > 1 && payload.kvHeads < payload.heads);
    this.kvGroups.input.checked = view.groups;
    this.distribution.input.checked = view.distribution;
    show(this.both, several);
    this.differs.input.checked = view.difference !== null;
    this.refreshRoles(whole, view);
    const { steps, panel, courseOf } = coursesOf(whole);
    const first = steps.length ? panel(courseOf(view.panel), -Infinity) : 0;
    const last = steps.length ? panel(courseOf(view.panel), Infinity) : whole.panels.length - 1;
    const [after, before] = view.difference ?? [last, first];
    this.after.refresh(whole, after);
    this.before.refresh(whole, before);
    show(
      this.significant,
      shown.panels.some((panel) => panel.significant),
    );
  }

  /** One checkbox for each role; existing ones are reused, so that they keep the focus. */
  private refreshRoles({ roles }: Payload, view: View): void {
    show(this.roles, roles.length > 0);
    const names = roles.map((role) => role.name);
    if (names.join("\n") !== [...this.roleFields.keys()].join("\n")) {
      this.roleFields.clear();
      this.roles.replaceChildren(name("Roles"));
      for (const role of roles) {
        const words = `${letter(role)} ${role.name} (${role.scores.size})`;
        const { node, input } = field(words, { type: "checkbox" }, () => this.chooseRoles());
        this.roleFields.set(role.name, input);
        this.roles.append(node);
      }
    }
    for (const [role, input] of this.roleFields) input.checked = view.roles.includes(role);
  }

  private chooseRoles(): void {
    const chosen = [...this.roleFields].filter(([, input]) => input.checked);
    this.events.change({ roles: chosen.map(([role]) => role) });
  }

  private flag(words: string, change: (on: boolean) => Partial<View>) {
    return field(words, { type: "checkbox" }, (box) => this.events.change(change(box.checked)));
  }

  /** The two panels of the difference; initially the last minus the first. */
  private pair(): [number, number] {
    return [this.after.panel, this.before.panel];
  }

  private chooseDifference(): void {
    this.events.change({ difference: this.pair() });
  }

  private pin(): void {
    const scale =
      this.shown && entered(this.shown.payload, Number(this.low.input.value), Number(this.high.input.value));
    if (scale) this.events.change({ pinned: scale });
    else if (this.shown) this.events.change({});
  }

  private unpin(): void {
    this.events.change({ pinned: null });
  }
}

/** Range of values that the reader entered; an empty field is open-ended. */
function range(least: HTMLInputElement, most: HTMLInputElement): [number, number] {
  const entered = (input: HTMLInputElement, open: number) =>
    input.value === "" ? open : Number(input.value);
  return [entered(least, Number.NEGATIVE_INFINITY), entered(most, Number.POSITIVE_INFINITY)];
}

/** The scale that the reader entered, or null if it is invalid. */
function entered({ kind }: Payload, low: number, high: number): Scale | null {
  const from = kind === "level" ? low : -high;
  return Number.isFinite(from) && Number.isFinite(high) && high > from && (kind !== "level" || from >= 0)
    ? { low: from, high }
    : null;
}

function name(words: string): HTMLElement {
  return element("span", { class: "name" }, words);
}

function number(label: string): Record<string, string> {
  return { type: "number", step: "any", "aria-label": label };
}
