/**
 * Keep JupyterLab from handling keys typed inside the card: "a" and the arrow keys are shortcuts there.
 *
 * JupyterLab listens on the document in the capture phase and ignores elements with this attribute; a listener on the
 * window runs before it and sets the attribute. Keys without a function in the card, such as Control S, remain
 * JupyterLab's.
 */

const ATTRIBUTE = "data-lm-suppress-shortcuts";
const OWN_WITH_CONTROL = new Set(["a", "c", "z", " ", "Home", "End"]);

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
