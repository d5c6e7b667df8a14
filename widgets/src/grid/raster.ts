/** Rasterisation of a grid of cells, with every cell on whole pixels. */

import type { Cells, Paint } from "./scene";

export interface Raster {
  /** Top left corner, in pixels of the canvas. */
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly height: number;
  /** Opacity, blue, green and red from the highest to the lowest byte, so that red is first in memory, as in a canvas. */
  readonly pixels: Uint32Array<ArrayBuffer>;
}

/** Rasterise cells with `ratio` pixels per unit of the scene; (x, y) is the origin of the scene in pixels. */
export function raster(cells: Cells, ratio: number, x: number, y: number): Raster {
  const { columns, places, palette } = cells;
  const across = spans(columns, cells.width, ratio, x);
  const down = spans(cells.rows, cells.height, ratio, y);
  const width = across.length;
  const pixels = new Uint32Array(width * down.length);
  const colours = Uint32Array.from(palette, pixel);
  down.from.forEach((top, row) => {
    const line = top * width;
    across.from.forEach((left, column) => {
      const place = places[row * columns.length + column] ?? -1;
      if (place >= 0) pixels.fill(colours[place] ?? 0, line + left, line + (across.to[column] ?? 0));
    });
    for (let next = top + 1; next < (down.to[row] ?? 0); next++) {
      pixels.copyWithin(next * width, line, line + width);
    }
  });
  return { x: across.start, y: down.start, width, height: down.length, pixels };
}

/** Both ends of each column or row in whole pixels, relative to the first. */
interface Spans {
  readonly start: number;
  readonly length: number;
  readonly from: readonly number[];
  readonly to: readonly number[];
}

/** The spans of columns or rows, each at least one pixel long. */
function spans(edges: readonly number[], size: number, ratio: number, offset: number): Spans {
  const whole = (edge: number) => Math.round(offset + ratio * edge);
  const start = whole(edges[0] ?? 0);
  const from = edges.map((edge) => whole(edge) - start);
  const to = edges.map((edge, i) => Math.max(whole(edge + size) - start, (from[i] ?? 0) + 1));
  return { start, length: to.at(-1) ?? 0, from, to };
}

/** A colour in the format of `Raster.pixels`. */
export function pixel({ colour, opacity }: Paint): number {
  const [red = 0, green = 0, blue = 0] = [1, 3, 5].map((i) => Number.parseInt(colour.slice(i, i + 2), 16));
  return ((Math.round(255 * opacity) << 24) | (blue << 16) | (green << 8) | red) >>> 0;
}
