/** Painting of a scene on a canvas; the units of a scene are CSS pixels. */

import { raster } from "./raster";
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

const LARGEST_SIDE = 16_384;
const MOST_PIXELS = 32e6; // 128 MB; a browser without enough memory for a canvas shows an empty one

/** Canvas pixels per unit of the scene: `wanted`, or less if the canvas would be too large. */
export function sharpness({ width, height }: Pick<Scene, "width" | "height">, wanted: number): number {
  return Math.min(wanted, LARGEST_SIDE / Math.max(width, height), Math.sqrt(MOST_PIXELS / (width * height)));
}

export function paintScene(context: CanvasRenderingContext2D, scene: Scene, theme: Theme): void {
  for (const mark of scene.marks) paintMark(context, mark, theme);
}

function paintMark(context: CanvasRenderingContext2D, mark: Mark, theme: Theme): void {
  context.save();
  switch (mark.mark) {
    case "group":
      context.translate(mark.x, mark.y);
      for (const inner of mark.marks) paintMark(context, inner, theme);
      break;
    case "rects":
      context.globalAlpha = mark.opacity;
      context.fillStyle = mark.fill;
      eachQuad(mark.boxes, (x, y, width, height) => context.fillRect(x, y, width, height));
      break;
    case "cells":
      paintCells(context, mark);
      break;
    case "strokes":
      context.globalAlpha = mark.opacity;
      context.strokeStyle = mark.stroke;
      context.lineWidth = mark.width;
      context.beginPath();
      eachQuad(mark.ends, (x1, y1, x2, y2) => {
        context.moveTo(x1, y1);
        context.lineTo(x2, y2);
      });
      context.stroke();
      break;
    case "discs":
      context.fillStyle = mark.fill;
      context.beginPath();
      eachPair(mark.centres, (x, y) => {
        context.moveTo(x + mark.radius, y);
        context.arc(x, y, mark.radius, 0, 2 * Math.PI);
      });
      context.fill();
      break;
    case "polygon":
      context.globalAlpha = mark.opacity;
      context.fillStyle = mark.fill;
      context.beginPath();
      eachPair(mark.corners, (x, y) => context.lineTo(x, y));
      context.fill();
      break;
    case "label":
      paintLabel(context, mark, theme);
  }
  context.restore();
}

/** Paint cells as one image in canvas pixels: one rectangle per cell would take tens of milliseconds. */
function paintCells(context: CanvasRenderingContext2D, mark: Cells): void {
  const { a: ratio, e, f } = context.getTransform();
  const { x, y, width, height, pixels } = raster(mark, ratio, e, f);
  if (width <= 0 || height <= 0) return;
  const image = new OffscreenCanvas(width, height);
  const drawn = new ImageData(new Uint8ClampedArray(pixels.buffer), width, height);
  image.getContext("2d")?.putImageData(drawn, 0, 0);
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.drawImage(image, x, y);
}

function paintLabel(context: CanvasRenderingContext2D, mark: Label, theme: Theme): void {
  context.globalAlpha = mark.opacity;
  context.fillStyle = mark.fill;
  context.font = `${mark.bold ? "600 " : ""}${mark.size}px ${theme.font}`;
  context.textAlign = mark.anchor === "middle" ? "center" : mark.anchor;
  context.translate(mark.x, mark.y);
  if (mark.upwards) context.rotate(-Math.PI / 2);
  if (mark.halo) {
    context.strokeStyle = mark.halo;
    context.lineWidth = HALO_WIDTH;
    context.lineJoin = "round";
    context.strokeText(mark.words, 0, 0);
  }
  context.fillText(mark.words, 0, 0);
}
