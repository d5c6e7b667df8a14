/** A picture as a list of marks: what canvas and SVG are both painted from. */

/** Rectangles of one colour: x, y, width, height of each in turn. */
export interface Rects {
  readonly mark: "rects";
  readonly boxes: readonly number[];
  readonly fill: string;
  readonly opacity: number;
}

/** A grid of cells, row by row, each in one colour of the palette; a place of -1 is left empty. */
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

/** A colour, as #rrggbb, and how much of it covers the page. */
export interface Paint {
  readonly colour: string;
  readonly opacity: number;
}

/** Straight strokes of one colour: x1, y1, x2, y2 of each in turn. */
export interface Strokes {
  readonly mark: "strokes";
  readonly ends: readonly number[];
  readonly stroke: string;
  readonly opacity: number;
  readonly width: number;
}

/** Discs of one colour: x, y of each centre in turn. */
export interface Discs {
  readonly mark: "discs";
  readonly centres: readonly number[];
  readonly radius: number;
  readonly fill: string;
}

/** A filled polygon: x, y of each corner in turn. */
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
  /** Read from below, as a vertical axis's name is. */
  readonly upwards: boolean;
}

/** Marks in coordinates of their own. */
export interface Group {
  readonly mark: "group";
  readonly x: number;
  readonly y: number;
  readonly marks: readonly Mark[];
}

export type Mark = Rects | Cells | Strokes | Discs | Polygon | Label | Group;

export interface Scene {
  readonly width: number;
  readonly height: number;
  readonly marks: readonly Mark[];
}

/** What the page around the picture looks like. */
export interface Theme {
  readonly ink: string;
  readonly page: string;
  readonly font: string;
}

export const LABEL_OPACITY = 0.75;

type LabelStyle = Partial<Pick<Label, "size" | "anchor" | "bold" | "upwards" | "opacity">>;

export function label(theme: Theme, words: string, x: number, y: number, style: LabelStyle = {}): Label {
  const { size = 10, anchor = "start", bold = false, upwards = false, opacity = LABEL_OPACITY } = style;
  return { mark: "label", words, x, y, size, anchor, bold, upwards, opacity, fill: theme.ink };
}

const LETTER = 0.57; // a mean letter's width in bold text, of its size

/** The words, or as many of their letters as there is width for. */
export function fitting(words: string, width: number, size: number): string {
  const letters = Math.max(Math.floor(width / (LETTER * size)), 4);
  return words.length <= letters ? words : `${words.slice(0, letters - 1)}…`;
}

/** The words in lines of this width, broken between words, and within one that is longer than a line. */
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
