/** The picture with its heading and text, as it is saved to a file. */

import { hasLosses, lossChart } from "./loss-chart";
import { isUnscored, type Panel } from "./payload";
import type { Picture } from "./picture";
import { rolesLine } from "./roles";
import { group, label, type Scene, type Theme, wrapped } from "./scene";
import type { Shown } from "./view";
import { heading, missingLine, progressLine, significanceLine, subtitle } from "./words";

const LINE = 17;
const SIZE = 12.5;
const WIDEST = 900; // maximum width of a sheet whose picture is narrower
const MARGIN = 12;

export function sheet(found: Picture, theme: Theme): Scene {
  const { scene, shown } = found;
  const title = [heading(shown.payload), frontTitle(shown)].filter(Boolean).join(" · ");
  const [first, second, below] = [[title], [subtitle(shown.payload)], wordsBelow(shown)];
  const needed = Math.max(...[first, second, below].flat().map((words) => 0.6 * SIZE * words.length));
  const width = Math.max(scene.width, Math.min(needed, WIDEST));
  const broken = (lines: readonly string[]) => lines.flatMap((words) => wrapped(words, width, SIZE));
  const [bold, plain, last] = [broken(first), broken(second), broken(below)];
  const losses = lossesAbove(shown, theme, scene.width);
  const titles = (bold.length + plain.length) * LINE + 10;
  const top = titles + (losses?.height ?? 0);
  const written = (lines: readonly string[], y: number, heavy: boolean) =>
    lines.map((words, i) =>
      label(theme, words, 0, y + LINE * (i + 1) - 3, { size: SIZE, bold: heavy, opacity: 1 }),
    );
  const marks = [
    ...written(bold, 0, true),
    ...written(plain, bold.length * LINE, false),
    ...(losses ? [group(0, titles, losses.marks)] : []),
    group(0, top, scene.marks),
    ...written(last, top + scene.height, false),
  ];
  return {
    width: width + 2 * MARGIN,
    height: top + scene.height + last.length * LINE + 8 + 2 * MARGIN,
    marks: [group(MARGIN, MARGIN, marks)],
  };
}

function lossesAbove({ payload, view }: Shown, theme: Theme, width: number): Scene | null {
  return view.difference || !hasLosses(payload) ? null : lossChart(payload, view.panel, theme, width).scene;
}

/** Title of the only panel shown out of several; empty if all panels are shown, each with its title. */
export function frontTitle({ payload, panels, view }: Shown): string {
  const [panel] = panels;
  const oneOfSeveral = panels.length === 1 && (payload.panels.length > 1 || view.difference !== null);
  return oneOfSeveral && panel ? panel.title : "";
}

function wordsBelow(shown: Shown): string[] {
  const { payload, panels } = shown;
  const words = isUnscored(payload) ? [] : panels.flatMap((panel) => panelWords(shown, panel));
  return [...words, rolesLine(shown), missingLine(payload), progressLine(payload)].filter(Boolean);
}

function panelWords(shown: Shown, panel: Panel): string[] {
  const lines = [panel.statisticsLine, significanceLine(shown.payload, panel)];
  if (shown.panels.length === 1) return [...lines, ...panel.notes, panel.reliabilityLine];
  return [
    [panel.title, ...lines, panel.reliabilityLine].filter(Boolean).join(" · "),
    ...panel.notes.map((note) => `${panel.title}: ${note}`),
  ];
}
