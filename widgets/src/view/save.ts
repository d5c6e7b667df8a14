/** A picture or its data as a file, and words on the clipboard. */

import { paintScene, sharpness } from "../grid/canvas";
import { type Picture, sheet } from "../grid/picture";
import type { Scene, Theme } from "../grid/scene";
import { sceneAsSvg } from "../grid/svg";
import { beliefLine, heading, statisticsLine, subtitle } from "../grid/words";

const SHARP = 2;

export type Form = "png" | "svg" | "json";

/** Save the picture with its heading and words (PNG, SVG), or the payload as it came (JSON). */
export async function save(form: Form, picture: Picture, theme: Theme, source: unknown): Promise<void> {
  const { payload, panels } = picture.shown;
  const words = panels.map((panel) =>
    [panels.length > 1 ? panel.title : "", statisticsLine(panel), beliefLine(panel)]
      .filter(Boolean)
      .join(" · "),
  );
  const scene = sheet(picture, theme, [heading(payload), subtitle(payload)], words);
  const name = fileName(heading(payload));
  if (form === "json") {
    const text = typeof source === "string" ? source : JSON.stringify(source);
    download(`${name}.heads.json`, new Blob([text], { type: "application/json" }));
  } else if (form === "svg") {
    download(
      `${name}.svg`,
      new Blob([sceneAsSvg(scene, theme, heading(payload))], { type: "image/svg+xml" }),
    );
  } else {
    const made = await png(scene, theme);
    if (made) download(`${name}.png`, made);
  }
}

function png(scene: Scene, theme: Theme): Promise<Blob | null> {
  const ratio = sharpness(scene, SHARP);
  const canvas = document.createElement("canvas");
  canvas.width = Math.ceil(scene.width * ratio);
  canvas.height = Math.ceil(scene.height * ratio);
  const context = canvas.getContext("2d");
  if (!context) return Promise.resolve(null);
  context.fillStyle = theme.page;
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.scale(ratio, ratio);
  paintScene(context, scene, theme);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}

function download(name: string, content: Blob): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(content);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** A title as a file name that every system accepts. */
function fileName(title: string): string {
  const name = title
    .normalize("NFKD")
    .replace(/[^A-Za-z0-9._-]+/g, "-")
    .replace(/^[-.]+|[-.]+$/g, "");
  return name.slice(0, 80) || "heads";
}

/** Whether the words are on the clipboard now; a page that may not write there keeps them as they were. */
export async function copy(words: string, near: Node): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(words);
    return true;
  } catch {
    return copyByHand(words, near);
  }
}

/** For pages served without https, where there is no clipboard to write to. */
function copyByHand(words: string, near: Node): boolean {
  const field = document.createElement("textarea");
  field.value = words;
  field.className = "unseen";
  near.appendChild(field);
  field.select();
  const done = document.execCommand("copy");
  field.remove();
  return done;
}
