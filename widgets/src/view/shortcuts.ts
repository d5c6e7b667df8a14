/**
 * Keys typed inside the card stay there: JupyterLab would take "a" or an arrow key for one of its own shortcuts.
 *
 * JupyterLab listens on the document while the event comes down, and looks for this attribute; the window is
 * asked before it. Combinations that are not the card's own, such as Control S, remain JupyterLab's.
 */

const ATTRIBUTE = "data-lm-suppress-shortcuts";
const OWN_WITH_CONTROL = new Set(["a", "c", "Home", "End"]);

export function guardKeys(host: HTMLElement): () => void {
  const guard = (event: KeyboardEvent) => {
    const control = event.ctrlKey || event.metaKey;
    const running = event.key === "Enter" && event.shiftKey;
    const own = !event.altKey && !running && (!control || OWN_WITH_CONTROL.has(event.key));
    if (own && event.composedPath().includes(host)) host.setAttribute(ATTRIBUTE, "true");
    else host.removeAttribute(ATTRIBUTE);
  };
  window.addEventListener("keydown", guard, true);
  return () => window.removeEventListener("keydown", guard, true);
}
