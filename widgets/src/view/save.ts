/** Saving of a picture or its data to a file, and copying of text to the clipboard. */

import { paintScene, sharpness } from "../grid/canvas";
import { type Picture, picture } from "../grid/picture";
import type { Scene, Theme } from "../grid/scene";
import { frontTitle, sheet } from "../grid/sheet";
import { sceneAsSvg } from "../grid/svg";
import { asCsv, tableRows } from "../grid/table";
import { heading } from "../grid/words";

const SHARP = 2;

export type Form = "png" | "svg" | "csv" | "json";

const THEMES = { light: { ink: "#222222", page: "#ffffff" }, dark: { ink: "#dddddd", page: "#111111" } };

/** Colours of a saved picture: those of the page, or light or dark ones. */
export type SavedTheme = "page" | keyof typeof THEMES;

/** The picture drawn again in the chosen colours. */
export function recoloured(found: Picture, theme: Theme, chosen: SavedTheme): [Picture, Theme] {
  if (chosen === "page") return [found, theme];
  const other = { ...theme, ...THEMES[chosen] };
  return [picture(found.shown, other, found.layout.width), other];
}

/** Save the picture with its heading and text (PNG, SVG), its values (CSV), or the unchanged payload (JSON). */
export async function save(form: Form, picture: Picture, theme: Theme, source: unknown): Promise<void> {
  const title = heading(picture.shown.payload);
  const front = frontTitle(picture.shown);
  if (form === "json") {
    const text = typeof source === "string" ? source : JSON.stringify(source);
    download(`${fileName(title)}.heads.json`, new Blob([text], { type: "application/json" }));
    return;
  }
  const name = fileName(title, front);
  if (form === "csv") {
    download(`${name}.csv`, new Blob([asCsv(tableRows(picture.shown))], { type: "text/csv" }));
    return;
  }
  const scene = sheet(picture, theme);
  if (form === "svg") {
    const text = sceneAsSvg(scene, theme, [title, front].filter(Boolean).join(" · "));
    download(`${name}.svg`, new Blob([text], { type: "image/svg+xml" }));
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

/** A file name from titles that every operating system accepts. */
export function fileName(...titles: string[]): string {
  const names = titles.map((title) =>
    title
      .normalize("NFKD")
      .replace(/[^A-Za-z0-9._-]+/g, "-")
      .replace(/^[-.]+|[-.]+$/g, "")
      .slice(0, 80),
  );
  return names.filter(Boolean).join("-") || "heads";
}

/** Copy a text to the clipboard; returns whether that was possible. */
export async function copy(words: string, near: Node): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(words);
    return true;
  } catch {
    return copyByHand(words, near);
  }
}

/** Copy without the clipboard API, which pages served without https do not have. */
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
