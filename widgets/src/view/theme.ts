/** The page's colours as the canvas needs them, and word of their change, whichever way a host changes them. */

import type { Theme } from "../grid/scene";

type Channels = readonly [number, number, number, number];

export function readTheme(card: HTMLElement, probe: HTMLElement): Theme {
  const style = getComputedStyle(card);
  const page = pageBehind(card) ?? channels(getComputedStyle(probe).backgroundColor);
  return { ink: hex(over(channels(style.color), page)), page: hex(page), font: style.fontFamily };
}

export function sameTheme(one: Theme | null, other: Theme): boolean {
  return one?.ink === other.ink && one.page === other.page && one.font === other.font;
}

/**
 * Calls `changed` when the page's colours may have changed: the probe's colours have a transition, whose course is
 * heard. JupyterLab exchanges its style sheets in several steps, so that a transition may be cancelled rather than
 * end; and cells out of sight have no transitions, so that `changed` is called too when the card comes into sight.
 */
export function watchTheme(card: HTMLElement, probe: HTMLElement, changed: () => void): () => void {
  let waiting = false;
  const soon = () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      changed();
    });
  };
  for (const event of ["transitionrun", "transitionend", "transitioncancel"])
    probe.addEventListener(event, soon);
  const sight = new IntersectionObserver(soon);
  sight.observe(card);
  return () => sight.disconnect();
}

/** The first background behind the card that is not see-through; null where the page has only the browser's own. */
function pageBehind(card: HTMLElement): Channels | null {
  let node: Element | null = card;
  while (node) {
    const found = channels(getComputedStyle(node).backgroundColor);
    if (found[3] > 0.5) return found;
    const root: Node = node.getRootNode();
    node = node.parentElement ?? (root instanceof ShadowRoot ? root.host : null);
  }
  return null;
}

const reader = new Map<string, Channels>();

/** Red, green, blue and opacity of any CSS colour, as the canvas itself understands it. */
function channels(colour: string): Channels {
  const known = reader.get(colour) ?? plain(colour);
  if (known) return known;
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 1;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  if (!context) return [0, 0, 0, 1];
  context.fillStyle = colour;
  context.fillRect(0, 0, 1, 1);
  const [red = 0, green = 0, blue = 0, alpha = 0] = context.getImageData(0, 0, 1, 1).data;
  const found: Channels = [red, green, blue, alpha / 255];
  reader.set(colour, found);
  return found;
}

/** `rgb(1, 2, 3)` and `rgba(1, 2, 3, 0.5)`, as most pages' colours are computed to: a canvas takes milliseconds. */
function plain(colour: string): Channels | null {
  const found = /^rgba?\((\d+), (\d+), (\d+)(?:, ([\d.]+))?\)$/.exec(colour);
  return found && [Number(found[1]), Number(found[2]), Number(found[3]), Number(found[4] ?? 1)];
}

function over(above: Channels, below: Channels): Channels {
  const mix = (i: 0 | 1 | 2) => Math.round(above[i] * above[3] + below[i] * (1 - above[3]));
  return [mix(0), mix(1), mix(2), 1];
}

function hex([red, green, blue]: Channels): string {
  return `#${[red, green, blue].map((channel) => channel.toString(16).padStart(2, "0")).join("")}`;
}
