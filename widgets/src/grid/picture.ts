/** The picture of a grid: legend, and per panel its cells, axes, layer profile and distribution. */

import { axes, profile } from "./axes";
import { type Colouring, colouring } from "./colours";
import { bins, distribution, type Histogram } from "./distribution";
import { arrange, cellX, cellY, type Layout } from "./layout";
import { legend } from "./legend";
import { isUnscored, isWaiting, type Panel } from "./payload";
import { roleMarks } from "./roles";
import { group, type Mark, type Scene, strokes, type Theme } from "./scene";
import { furthest, layerMeans } from "./statistics";
import { partsOf, type Shown } from "./view";

export interface Picture {
  readonly scene: Scene;
  readonly layout: Layout;
  readonly shown: Shown;
  /** What has a legend, in their order; empty without scores. */
  readonly looks: readonly Look[];
  /** One histogram per panel; empty if distributions are not drawn. */
  readonly histograms: readonly Histogram[];
}

/** What panels of one kind share. */
export interface Look {
  readonly part: Shown;
  readonly colours: Colouring;
  /** Largest absolute mean of a layer, which has the longest bar. */
  readonly longest: number;
  readonly histograms: readonly Histogram[];
}

/** Draw the picture within `width` CSS pixels; it is wider only if the smallest cells need more. */
export function picture(shown: Shown, theme: Theme, width: number): Picture {
  const { payload, panels, view } = shown;
  const { groups, distribution: distributed } = view;
  const titled = panels.length > 1;
  const parts = partsOf(shown);
  const options = {
    panels: panels.length,
    legends: parts.length,
    width,
    titled,
    groups,
    distribution: distributed,
  };
  const layout = arrange(payload, options);
  const unscored = isUnscored(payload);
  const looks = parts.map((part) => look(part, layout, distributed && !unscored));
  const marks = unscored ? [] : looks.flatMap((one, index) => legendAt(one, index, layout, theme));
  const histograms: Histogram[] = [];
  panels.forEach((panel, index) => {
    const { x, y } = layout.origins[index] ?? { x: 0, y: 0 };
    const found = looks.find(({ part }) => part.panels.includes(panel));
    if (!found) return;
    const { part, colours, longest } = found;
    const histogram = found.histograms[part.panels.indexOf(panel)];
    if (histogram) histograms.push(histogram);
    const first = index % layout.columns === 0;
    marks.push(
      group(x, y, [
        ...axes(part, panel, layout, theme, first),
        cells(panel, layout, unscored ? waiting(theme, colours) : colours),
        ...(isWaiting(panel, payload) ? [] : missing(panel, layout, theme)),
        ...roleMarks(shown, layout, theme),
        ...significant(panel, layout),
        ...(unscored ? [] : profile(part, layerMeans(panel.values, payload), longest, layout, theme)),
        ...(histogram ? distribution(histogram, layout, colours, part, theme) : []),
      ]),
    );
  });
  return { scene: { width: layout.width, height: layout.height, marks }, layout, shown, looks, histograms };
}

function look(part: Shown, layout: Layout, distributed: boolean): Look {
  const { payload, panels, view } = part;
  const means = panels.map((panel) => layerMeans(panel.values, payload));
  return {
    part,
    colours: colouring(payload.kind, view.spread, payload.scale, payload),
    longest: Math.max(...means.map((mean) => Math.abs(furthest(mean)))) || 1,
    histograms: distributed ? bins(part, layout) : [],
  };
}

function legendAt({ part, colours }: Look, index: number, layout: Layout, theme: Theme): Mark[] {
  const { x, y } = layout.legendOrigins[index] ?? { x: 0, y: 0 };
  const room =
    (layout.legendOrigins[index + 1]?.x ?? x) > x ? (layout.legendOrigins[index + 1]?.x ?? 0) : layout.width;
  return [group(x, y, legend(part, theme, colours, room - x))];
}

/** Colours of heads without scores: one shade of the page's text colour. */
function waiting({ ink }: Theme, colours: Colouring): Colouring {
  return { ...colours, palette: colours.palette.map(() => ({ colour: ink, opacity: 0.08 })) };
}

function cells(panel: Panel, layout: Layout, colours: Colouring): Mark {
  return {
    mark: "cells",
    columns: Array.from({ length: layout.heads }, (_, head) => cellX(layout, head)),
    rows: Array.from({ length: layout.layers }, (_, layer) => cellY(layout, layer)),
    width: layout.cellWidth - layout.gap,
    height: layout.cellHeight - layout.gap,
    places: colours.places(panel),
    palette: colours.palette,
  };
}

/** A slash in each cell without a value, so that complete layers look hatched. */
function missing(panel: Panel, layout: Layout, theme: Theme): Mark[] {
  const ends: number[] = [];
  panel.values.forEach((value, cell) => {
    if (!Number.isNaN(value)) return;
    const x = cellX(layout, cell % layout.heads);
    const y = cellY(layout, Math.floor(cell / layout.heads));
    ends.push(x, y + layout.cellHeight - layout.gap, x + layout.cellWidth - layout.gap, y);
  });
  return ends.length ? [strokes(theme.ink, ends, 0.8, 0.4)] : [];
}

/** A dot on every significant head: black in a white ring, visible on every colour and page. */
function significant(panel: Panel, layout: Layout): Mark[] {
  const width = layout.cellWidth - layout.gap;
  const height = layout.cellHeight - layout.gap;
  const centres: number[] = [];
  panel.significant?.forEach((marked, cell) => {
    if (!marked) return;
    const x = cellX(layout, cell % layout.heads) + width / 2;
    centres.push(x, cellY(layout, Math.floor(cell / layout.heads)) + height / 2);
  });
  if (centres.length === 0) return [];
  const across = Math.max(1.8, Math.min(5, Math.min(width, height) / 3));
  return [
    { mark: "discs", centres, radius: across / 2 + 0.8, fill: "#ffffff" },
    { mark: "discs", centres, radius: across / 2, fill: "#000000" },
  ];
}
