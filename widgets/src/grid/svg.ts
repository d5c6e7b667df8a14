/** A scene as a standalone SVG file with escaped text, and without scripts, ids or styles. */

import {
  type Cells,
  eachPair,
  eachQuad,
  HALO_WIDTH,
  type Label,
  type Mark,
  type Scene,
  type Theme,
} from "./scene";

export function sceneAsSvg(scene: Scene, theme: Theme, title: string): string {
  const size = `width="${tidy(scene.width)}" height="${tidy(scene.height)}"`;
  const box = `viewBox="0 0 ${tidy(scene.width)} ${tidy(scene.height)}"`;
  const page = `<rect width="100%" height="100%" fill="${escaped(theme.page)}"/>`;
  return (
    `<svg xmlns="http://www.w3.org/2000/svg" ${size} ${box} font-family="${escaped(theme.font)}" role="img">` +
    `<title>${escaped(title)}</title>${page}${scene.marks.map(asSvg).join("")}</svg>\n`
  );
}

function asSvg(mark: Mark): string {
  switch (mark.mark) {
    case "group":
      return `<g transform="translate(${tidy(mark.x)} ${tidy(mark.y)})">${mark.marks.map(asSvg).join("")}</g>`;
    case "rects": {
      let path = "";
      eachQuad(mark.boxes, (x, y, width, height) => {
        path += `M${tidy(x)} ${tidy(y)}h${tidy(width)}v${tidy(height)}h${tidy(-width)}z`;
      });
      return `<path d="${path}" fill="${escaped(mark.fill)}"${faded(mark.opacity)}/>`;
    }
    case "cells":
      return cellsAsSvg(mark);
    case "strokes": {
      let path = "";
      eachQuad(mark.ends, (x1, y1, x2, y2) => {
        path += `M${tidy(x1)} ${tidy(y1)}L${tidy(x2)} ${tidy(y2)}`;
      });
      return `<path d="${path}" stroke="${escaped(mark.stroke)}" stroke-width="${mark.width}"${faded(mark.opacity)}/>`;
    }
    case "discs": {
      let path = "";
      eachPair(mark.centres, (x, y) => {
        path += `M${tidy(x)} ${tidy(y)}h0`;
      });
      return `<path d="${path}" stroke="${escaped(mark.fill)}" stroke-width="${tidy(2 * mark.radius)}" stroke-linecap="round"/>`;
    }
    case "polygon":
      return `<polygon points="${mark.corners.map(tidy).join(" ")}" fill="${escaped(mark.fill)}"${faded(mark.opacity)}/>`;
    case "label":
      return labelAsSvg(mark);
  }
}

/** One path per colour. */
function cellsAsSvg({ columns, rows, width, height, places, palette }: Cells): string {
  const paths = palette.map(() => "");
  const cell = `h${tidy(width)}v${tidy(height)}h${tidy(-width)}z`;
  places.forEach((paint, place) => {
    const x = columns[place % columns.length] ?? 0;
    const y = rows[Math.floor(place / columns.length)] ?? 0;
    if (paint >= 0) paths[paint] += `M${tidy(x)} ${tidy(y)}${cell}`;
  });
  const drawn = palette.map(({ colour, opacity }, paint) =>
    paths[paint] && opacity ? `<path d="${paths[paint]}" fill="${escaped(colour)}"${faded(opacity)}/>` : "",
  );
  return drawn.join("");
}

function labelAsSvg(mark: Label): string {
  const place = `transform="translate(${tidy(mark.x)} ${tidy(mark.y)})${mark.upwards ? " rotate(-90)" : ""}"`;
  const style = `font-size="${mark.size}" text-anchor="${mark.anchor}" fill="${escaped(mark.fill)}"`;
  const weight = mark.bold ? ' font-weight="600"' : "";
  const outline = mark.halo
    ? ` stroke="${escaped(mark.halo)}" stroke-width="${HALO_WIDTH}" stroke-linejoin="round" paint-order="stroke"`
    : "";
  return `<text ${place} ${style}${weight}${outline}${faded(mark.opacity)}>${escaped(mark.words)}</text>`;
}

function faded(opacity: number): string {
  return opacity < 1 ? ` opacity="${opacity}"` : "";
}

function tidy(value: number): string {
  return String(Math.round(value * 100) / 100);
}

const ENTITIES = new Map([
  ["&", "&amp;"],
  ["<", "&lt;"],
  [">", "&gt;"],
  ['"', "&quot;"],
]);

/** Escape a text for XML, which does not allow control characters: U+FFFD replaces them. */
function escaped(words: string): string {
  return words
    .replace(/[&<>"]/g, (letter) => ENTITIES.get(letter) ?? letter)
    .replace(/[^\P{C}\p{Cf}]/gu, "\ufffd");
}
