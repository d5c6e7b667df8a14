/** Scene: a picture as a list of marks, which is painted on a canvas or written as SVG. */

/** Rectangles of one colour, as a flat list of x, y, width, height. */
export interface Rects {
  readonly mark: "rects";
  readonly boxes: readonly number[];
  readonly fill: string;
  readonly opacity: number;
}

/** A grid of cells. `places` has the palette index of each cell, row by row; -1 means no cell. */
export interface Cells {
  readonly mark: "cells";
  /** Left edges of the columns and top edges of the rows. */
  readonly columns: readonly number[];
  readonly rows: readonly number[];
  readonly width: number;
  readonly height: number;
  readonly places: Int16Array;
  readonly palette: readonly Paint[];
}

/** A colour as #rrggbb, and its opacity. */
export interface Paint {
  readonly colour: string;
  readonly opacity: number;
}

/** Straight strokes of one colour, as a flat list of x1, y1, x2, y2. */
export interface Strokes {
  readonly mark: "strokes";
  readonly ends: readonly number[];
  readonly stroke: string;
  readonly opacity: number;
  readonly width: number;
}

/** Discs of one colour, as a flat list of the centres' x, y. */
export interface Discs {
  readonly mark: "discs";
  readonly centres: readonly number[];
  readonly radius: number;
  readonly fill: string;
}

/** A filled polygon, as a flat list of the corners' x, y. */
export interface Polygon {
  readonly mark: "polygon";
  readonly corners: readonly number[];
  readonly fill: string;
  readonly opacity: number;
}

export interface Label {
  readonly mark: "label";
  readonly words: string;
  readonly x: number;
  readonly y: number;
  readonly size: number;
  readonly anchor: "start" | "middle" | "end";
  readonly bold: boolean;
  readonly fill: string;
  readonly opacity: number;
  /** Whether the text runs upwards, like the label of a vertical axis. */
  readonly upwards: boolean;
  /** Colour of an outline around the letters. */
  readonly halo?: string;
}

/** Marks with coordinates relative to (x, y). */
export interface Group {
  readonly mark: "group";
  readonly x: number;
  readonly y: number;
  readonly marks: readonly Mark[];
}

/** The four sides of a box, as the ends of strokes. */
export function sides(left: number, top: number, right: number, bottom: number): number[] {
  return [
    ...[left, top, right, top, right, top, right, bottom],
    ...[right, bottom, left, bottom, left, bottom, left, top],
  ];
}

export type Mark = Rects | Cells | Strokes | Discs | Polygon | Label | Group;

export interface Scene {
  readonly width: number;
  readonly height: number;
  readonly marks: readonly Mark[];
}

/** Text colour, background colour and font of the page. */
export interface Theme {
  readonly ink: string;
  readonly page: string;
  readonly font: string;
}

export const LABEL_OPACITY = 0.75;
export const HALO_WIDTH = 2.5;

type LabelStyle = Partial<Pick<Label, "size" | "anchor" | "bold" | "upwards" | "opacity">>;

export function label(theme: Theme, words: string, x: number, y: number, style: LabelStyle = {}): Label {
  const { size = 10, anchor = "start", bold = false, upwards = false, opacity = LABEL_OPACITY } = style;
  return { mark: "label", words, x, y, size, anchor, bold, upwards, opacity, fill: theme.ink };
}

const LETTER = 0.57; // mean width of a letter in bold text, relative to the font size

/** The text, truncated to the width. */
export function fitting(words: string, width: number, size: number): string {
  const letters = Math.max(Math.floor(width / (LETTER * size)), 4);
  return words.length <= letters ? words : `${words.slice(0, letters - 1)}…`;
}

/** Wrap a text to the width, between words, and within a word that is longer than a line. */
export function wrapped(words: string, width: number, size: number): string[] {
  const letters = Math.max(Math.floor(width / (LETTER * size)), 4);
  const lines: string[] = [];
  let line = "";
  for (const word of words.split(" ")) {
    const longer = line ? `${line} ${word}` : word;
    if (longer.length <= letters) {
      line = longer;
      continue;
    }
    if (line) lines.push(line);
    line = word;
    while (line.length > letters) {
      lines.push(line.slice(0, letters));
      line = line.slice(letters);
    }
  }
  return [...lines, line];
}

export function strokes(stroke: string, ends: readonly number[], width = 1, opacity = 1): Strokes {
  return { mark: "strokes", ends, stroke, width, opacity };
}

export function rects(fill: string, boxes: readonly number[], opacity = 1): Rects {
  return { mark: "rects", boxes, fill, opacity };
}

export function group(x: number, y: number, marks: readonly Mark[]): Group {
  return { mark: "group", x, y, marks };
}

export function eachQuad(
  flat: readonly number[],
  visit: (a: number, b: number, c: number, d: number) => void,
): void {
  for (let i = 0; i + 3 < flat.length; i += 4) {
    visit(flat[i] as number, flat[i + 1] as number, flat[i + 2] as number, flat[i + 3] as number);
  }
}

export function eachPair(flat: readonly number[], visit: (x: number, y: number) => void): void {
  for (let i = 0; i + 1 < flat.length; i += 2) visit(flat[i] as number, flat[i + 1] as number);
}
