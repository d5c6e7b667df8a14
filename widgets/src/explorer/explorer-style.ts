/** Style of the explorer, in addition to that of the card. */

import { FALL, RISE } from "../grid/colours";

const CSS = `
.run { display: flex; flex-wrap: wrap; gap: 6px 12px; align-items: center; padding: 6px 10px; background: var(--tint); border-radius: 6px; }
.run label, .tabpanel label { display: inline-flex; gap: 5px; align-items: center; }
.run select { max-width: 20em; }
.run input[type="number"], .tabpanel input[type="number"] { width: 5em; }
.run .main { font-weight: 600; border-color: currentColor; }
.working { display: flex; gap: 10px; align-items: center; min-height: 24px; margin: 2px 0; font-variant-numeric: tabular-nums; }
.working progress { width: 180px; accent-color: var(--accent); }
.tabpanel .working:has(progress[hidden]) { display: none; }
.tabpanel [aria-busy="true"] { opacity: .45; }
.wide .columns { display: grid; grid-template-columns: minmax(0, 1fr) minmax(0, 1fr); gap: 0 32px; align-items: start; }
.tabs { display: flex; gap: 4px; margin-top: 8px; border-bottom: 1px solid var(--line); }
.tabs [role="tab"] { border: 0; border-bottom: 2px solid transparent; border-radius: 0; padding: 3px 12px; font-size: 13px; }
.tabs [role="tab"][aria-selected="true"] { background: none; border-bottom-color: var(--accent); font-weight: 600; }
.tabpanel { padding: 8px 2px; }
.tabpanel p { margin: 0 0 6px; }
.chips { display: flex; flex-wrap: wrap; gap: 4px; margin-bottom: 8px; max-height: 5em; overflow: auto; }
.histogram { position: relative; width: 340px; padding: 22px 12px 36px 36px; }
.histogram svg { display: block; overflow: visible; }
.histogram rect { fill: currentColor; opacity: .45; }
.histogram rect.chosen { opacity: .8; }
.histogram span { position: absolute; margin: 22px 0 0 36px; font-size: 11px; line-height: 14px; white-space: nowrap; }
.histogram .tick { transform: translateX(-50%); }
.histogram .amount { transform: translate(-100%, -50%); }
.axis { stroke: currentColor; opacity: .5; }
.zero { stroke: currentColor; opacity: .6; stroke-dasharray: 3 3; }
.samples { max-height: 340px; overflow: auto; margin-top: 6px; }
.wide .samples { max-height: 560px; }
.samples tbody td { vertical-align: top; padding: 3px 12px 3px 0; border-top: 1px solid var(--line); }
.samples .text { white-space: pre-wrap; overflow-wrap: anywhere; font-family: var(--jp-code-font-family, ui-monospace, monospace); font-size: 12px; max-width: 46em; }
.samples .answer { font-weight: 600; }
.number { text-align: right; white-space: nowrap; }
.changes tbody :is(th, td) { vertical-align: top; padding-top: 4px; }
.change, .texts dt { white-space: nowrap; }
.row { display: flex; flex-wrap: wrap; gap: 6px 16px; align-items: center; margin-bottom: 8px; }
.tokens { white-space: pre-wrap; overflow-wrap: anywhere; line-height: 1.9; max-height: 300px; overflow: auto; padding: 4px 2px;
  font-family: var(--jp-code-font-family, ui-monospace, monospace); font-size: 12.5px; }
.tokens span { cursor: pointer; border-radius: 2px; padding: 1px 0; }
.tokens .answered { border-bottom: 2px solid currentColor; }
.tokens .query { outline: 2px solid var(--accent); outline-offset: 1px; }
.split { display: flex; flex-wrap: wrap; gap: 10px 24px; align-items: flex-start; }
.split > .text { flex: 1 1 420px; }
.key { width: max-content; max-width: 100%; margin: 2px 16px 8px 0; font-size: 12px; font-variant-numeric: tabular-nums; }
.key .ramp, .key .ticks { width: 240px; }
.key .ramp { height: 10px; background-origin: border-box; border: 1px solid var(--line); margin-top: 2px; }
.key .ticks { position: relative; height: 1.5em; }
.key .ticks span { position: absolute; transform: translateX(-50%); font-size: 11px; }
.key .ticks span:first-child { transform: none; }
.key .ticks span:last-child { transform: translateX(-100%); }
.matrix { max-width: 100%; box-sizing: border-box; aspect-ratio: 1; image-rendering: pixelated; border: 1px solid var(--line); cursor: crosshair; touch-action: none; }
.readout, .bin-line { min-height: 1.5em; font-variant-numeric: tabular-nums; white-space: pre-wrap; overflow-wrap: anywhere; }
.interval .reach { stroke: currentColor; stroke-width: 2; opacity: .55; }
.interval .control { fill: none; stroke: currentColor; opacity: .7; }
.rise { fill: ${RISE}; }
.fall { fill: ${FALL}; }
.texts { display: grid; grid-template-columns: max-content 1fr; gap: 2px 14px; margin: 8px 0 0; max-width: 70em; }
.texts dt { opacity: .75; }
.texts dd { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; font-family: var(--jp-code-font-family, ui-monospace, monospace); font-size: 12px; }
.tasks { display: flex; flex-wrap: wrap; gap: 2px 12px; max-height: 6em; overflow: auto; border: 0; margin: 0; padding: 0; }
`;

let sheet: CSSStyleSheet | null = null;

export function addExplorerStyle(root: ShadowRoot): void {
  if (!sheet) {
    sheet = new CSSStyleSheet();
    sheet.replaceSync(CSS);
  }
  root.adoptedStyleSheets = [...root.adoptedStyleSheets, sheet];
}
