/** Creation of elements with their content. Text becomes text nodes, never markup. */

type Child = Node | string;

export function element<Tag extends keyof HTMLElementTagNameMap>(
  tag: Tag,
  attributes: Readonly<Record<string, string>> = {},
  ...children: readonly Child[]
): HTMLElementTagNameMap[Tag] {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** An element of an SVG picture. */
export function shape(
  tag: string,
  attributes: Readonly<Record<string, string | number>>,
  ...children: readonly Child[]
): SVGElement {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, String(value));
  made.append(...children);
  return made;
}

export function button(
  words: string,
  pressed: () => void,
  attributes: Readonly<Record<string, string>> = {},
) {
  const made = element("button", { type: "button", ...attributes }, words);
  made.addEventListener("click", pressed);
  return made;
}

/** A labelled checkbox, radio button or number field. */
export function field(
  words: string,
  attributes: Readonly<Record<string, string>>,
  changed: (input: HTMLInputElement) => void,
) {
  const input = element("input", attributes);
  input.addEventListener("change", () => changed(input));
  const parts = attributes.type === "number" ? [words, input] : [input, words];
  return { node: element("label", {}, ...parts), input };
}

/** A select element; `changed` receives the index of the selected option. Fill it with `fillChoice`. */
export function choice(label: string, changed: (place: number) => void) {
  const node = element("select", { "aria-label": label });
  node.addEventListener("change", () => changed(node.selectedIndex));
  return node;
}

export function fillChoice(node: HTMLSelectElement, names: readonly string[], chosen: number): void {
  const same =
    node.options.length === names.length && names.every((name, i) => node.options[i]?.text === name);
  if (!same) node.replaceChildren(...names.map((name) => element("option", {}, name)));
  node.selectedIndex = chosen;
}

export function show(node: HTMLElement, visible: boolean): void {
  node.hidden = !visible;
}
