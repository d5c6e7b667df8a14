/** Colour key of shaded tokens or of a matrix: a bar whose opacity grows from 0 at its zero to both ends. */

import { FALL, RISE } from "../grid/colours";
import { number } from "../grid/words";
import { element } from "../view/dom";

export interface Shading {
  readonly title: string;
  readonly units: string;
  /** Largest absolute value, and the opacity in percent that it has. */
  readonly most: number;
  readonly opacity: number;
  readonly signed: boolean;
  /** Power of the opacity that is proportional to the value: 1, or 2 if opacities follow the square root. */
  readonly power: number;
}

/** `[place, value]` of each tick: the place in percent of the bar, from left to right. */
export function keyTicks({ most, signed, power }: Shading): [number, number][] {
  const shades = signed ? [-1, -0.5, 0, 0.5, 1] : [0, 0.5, 1];
  return shades.map((shade) => [
    signed ? 50 * (shade + 1) : 100 * shade,
    Math.sign(shade) * Math.abs(shade) ** power * most,
  ]);
}

export function colourKey(shading: Shading): HTMLElement {
  const { title, units, opacity, signed } = shading;
  const strong = (colour: string) => `color-mix(in srgb, ${colour} ${opacity}%, transparent)`;
  const stops = [...(signed ? [strong(FALL)] : []), "transparent", strong(RISE)];
  const ramp = element("div", { class: "ramp" });
  ramp.style.background = `linear-gradient(to right, ${stops.join(", ")})`;
  const ticks = keyTicks(shading).map(([place, value]) => {
    const tick = element("span", {}, number(value, 2));
    tick.style.left = `${place}%`;
    return tick;
  });
  const name = units ? `${title} (${units})` : title;
  return element(
    "div",
    { class: "key" },
    element("div", {}, name),
    ramp,
    element("div", { class: "ticks" }, ...ticks),
  );
}
