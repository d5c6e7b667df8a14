/** Painting of a scene on a canvas of the page. */

import { paintScene, sharpness } from "../grid/canvas";
import type { Scene, Theme } from "../grid/scene";

/** Paint a scene on a canvas of its size, at the resolution of the screen. */
export function paintOn(canvas: HTMLCanvasElement, scene: Scene, theme: Theme): void {
  const ratio = sharpness(scene, window.devicePixelRatio || 1);
  const width = Math.ceil(scene.width * ratio);
  const height = Math.ceil(scene.height * ratio);
  if (canvas.width !== width || canvas.height !== height) {
    canvas.width = width;
    canvas.height = height;
    canvas.style.width = `${scene.width}px`;
    canvas.style.height = `${scene.height}px`;
  }
  const context = canvas.getContext("2d");
  if (!context) return;
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.clearRect(0, 0, width, height);
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  paintScene(context, scene, theme);
}
