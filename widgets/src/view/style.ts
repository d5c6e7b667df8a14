/** Style of the card in its shadow root: it uses the page's colours and font and does not affect the page. */

/** Width of a card, in CSS pixels, from which its parts stand beside each other. */
export const WIDE = 1000;

const CSS = `
:host { display: block; }
:host([hidden]), [hidden] { display: none !important; }
.card {
  position: relative; box-sizing: border-box; padding: 2px 0; line-height: 1.5; font-size: 13px;
  font-family: var(--jp-ui-font-family, system-ui, -apple-system, "Segoe UI", sans-serif);
  color: var(--jp-ui-font-color1, var(--vscode-foreground, currentColor));
  --accent: var(--jp-brand-color1, var(--vscode-focusBorder, #1f6feb));
  --line: color-mix(in srgb, currentColor 22%, transparent);
  --tint: color-mix(in srgb, currentColor 8%, transparent);
  --paper: var(--jp-layout-color1, var(--vscode-editorWidget-background, Canvas));
}
.probe {
  position: absolute; width: 0; height: 0; pointer-events: none; transition: color 1ms, background-color 1ms;
  color: var(--jp-ui-font-color1, var(--vscode-foreground, currentColor));
  background-color: var(--jp-layout-color0, var(--vscode-editor-background, Canvas));
}
header { display: flex; flex-wrap: wrap; gap: 2px 12px; align-items: baseline; justify-content: space-between; }
header > :first-child { flex: 1 1 300px; }
.title { font-weight: 600; margin-right: 8px; }
.quiet { opacity: .75; }
.words { overflow-wrap: anywhere; }
.tools { display: flex; gap: 4px; opacity: .6; transition: opacity .15s; }
.card:hover .tools, .tools:focus-within, .tools:has([aria-expanded="true"]) { opacity: 1; }
button, select, input[type="number"] {
  font: inherit; font-size: 12px; line-height: 1.4; color: inherit; background: transparent; margin: 0;
  border: 1px solid var(--line); border-radius: 4px; padding: 1px 8px;
}
select, option { background: var(--paper); }
input[type="number"] { width: 8.5em; padding: 1px 4px; }
button { cursor: pointer; }
button:hover:enabled { background: var(--tint); }
button[aria-expanded="true"], button[aria-pressed="true"], [role="tab"][aria-selected="true"] { background: var(--tint); border-color: currentColor; }
button:disabled { opacity: .4; cursor: default; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 1px; }
input { accent-color: var(--accent); }
.drawer { display: flex; flex-wrap: wrap; gap: 6px 22px; align-items: center; padding: 6px 10px; margin: 4px 0 6px;
  background: var(--tint); border-radius: 6px; font-size: 12px; }
.drawer > *, .chooser { display: flex; flex-wrap: wrap; gap: 4px 10px; align-items: center; }
.drawer label { display: inline-flex; gap: 4px; align-items: center; }
.drawer input[type="checkbox"], .drawer input[type="radio"] { margin: 0; }
.drawer .name { opacity: .75; }
.chooser { margin: 4px 0; }
.losses { width: fit-content; cursor: ew-resize; touch-action: pan-y; user-select: none; -webkit-user-select: none; border-radius: 4px; }
.losses canvas { display: block; }
.steps { display: flex; gap: 10px; align-items: center; }
.steps input[type="range"] { width: 260px; min-width: 80px; }
[role="tablist"] { display: flex; flex-wrap: wrap; gap: 4px; }
.count { min-width: 8em; font-variant-numeric: tabular-nums; }
.progress { display: flex; gap: 8px; align-items: center; }
.progress progress { width: 180px; accent-color: var(--accent); }
.body { display: flex; flex-wrap: wrap; gap: 4px 28px; align-items: flex-start; margin-top: 4px; }
.scroller { max-width: 100%; overflow-x: auto; overflow-y: hidden; }
.stage { position: relative; cursor: crosshair; touch-action: pan-y; user-select: none; -webkit-user-select: none; border-radius: 4px; }
.stage:focus { outline: none; }
.stage:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
.stage canvas { display: block; }
.stage canvas + canvas { position: absolute; left: 0; top: 0; pointer-events: none; }
.aside { flex: 1 1 240px; min-width: 200px; max-width: 520px; padding-top: 14px; font-size: 12.5px; }
.aside.below { flex-basis: 100%; max-width: none; padding-top: 0; }
.wide .aside { display: flex; flex-wrap: wrap; gap: 0 32px; max-width: 920px; }
.wide .aside > div { flex: 1 1 260px; max-width: 440px; }
.wide .aside.below, .wide .aside.below > div { max-width: none; }
.wide .top { max-width: none; }
.aside h4 { font: inherit; font-weight: 600; margin: 0 0 2px; }
.aside p { margin: 0 0 8px; }
.top { list-style: none; margin: 0 0 8px; padding: 0; max-width: 260px; }
.top button { display: grid; grid-template-columns: 5.2em 1fr 5.6em; gap: 8px; align-items: center; width: 100%; border: 0; padding: 1px 4px; text-align: left; }
.top .bar { height: 8px; border-radius: 2px; background: currentColor; opacity: .35; }
.top .value { text-align: right; font-variant-numeric: tabular-nums; }
table { border-collapse: collapse; font-size: 12px; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding: 2px 0; }
th, td { text-align: left; padding: 1px 12px 1px 0; font-weight: inherit; }
thead th { font-weight: 600; }
.aside tbody tr { cursor: default; }
.data { max-height: 320px; max-width: 100%; overflow: auto; margin: 6px 0; border: 1px solid var(--line); border-radius: 4px; width: fit-content; }
.data th, .data td { padding: 1px 8px; text-align: right; }
.data thead th { position: sticky; top: 0; background: var(--paper); }
.data abbr { text-decoration: none; opacity: .75; }
.data thead button { border: 0; border-radius: 0; padding: 0; font-weight: inherit; }
.data th[aria-sort] button::after { content: " ▼"; font-size: 8px; }
.data th[aria-sort="ascending"] button::after { content: " ▲"; }
.data caption { padding: 2px 8px; }
.selection { display: flex; flex-wrap: wrap; gap: 4px 10px; align-items: center; min-height: 24px; font-size: 12.5px; }
.selection .names { max-width: 46em; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; font-variant-numeric: tabular-nums; }
.tooltip {
  position: absolute; z-index: 10; pointer-events: none; padding: 4px 8px; font-size: 12px; line-height: 1.45; white-space: pre;
  background: var(--paper); border: 1px solid var(--line); border-radius: 4px; box-shadow: 0 2px 8px rgb(0 0 0 / 25%);
  max-width: 340px; font-variant-numeric: tabular-nums;
}
.tooltip > div { overflow: hidden; text-overflow: ellipsis; }
.tooltip > div:first-child { font-weight: 600; }
.tooltip canvas { display: block; margin-top: 4px; }
.error { border-left: 3px solid #d1242f; padding: 2px 10px; }
.unseen { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
`;

let sheet: CSSStyleSheet | null = null;

/** The shadow root of `host`, with the card's style. */
export function styledRoot(host: HTMLElement): ShadowRoot {
  const root = host.shadowRoot ?? host.attachShadow({ mode: "open" });
  if (!sheet) {
    sheet = new CSSStyleSheet();
    sheet.replaceSync(CSS);
  }
  root.adoptedStyleSheets = [sheet];
  return root;
}
