/** The page's colours for the canvas, and detection of their change in every host. */

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
 * Call `changed` when the page's colours may have changed: the probe's colours have a CSS transition, whose events are
 * observed. JupyterLab replaces its style sheets in several steps, which may cancel a transition. Cells out of view have
 * no transitions, so `changed` is also called when the card scrolls into view.
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

/** The nearest opaque background behind the card; null if the page has only the browser's default. */
function pageBehind(card: HTMLElement): Channels | null {
  let node: Element | null = card;
  while (node) {
    const background = channels(getComputedStyle(node).backgroundColor);
    if (background[3] > 0.5) return background;
    const root: Node = node.getRootNode();
    node = node.parentElement ?? (root instanceof ShadowRoot ? root.host : null);
  }
  return null;
}

const reader = new Map<string, Channels>();

/** Red, green, blue and opacity of any CSS colour, resolved by a canvas. */
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

/** Parse `rgb(1, 2, 3)` and `rgba(1, 2, 3, 0.5)`, the most frequent forms, since a canvas takes milliseconds. */
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
