/** Attention tab: the tokens of a sample, shaded by A or by A * dL/dA, and the matrix. */

import { FALL, RISE } from "../grid/colours";
import { number } from "../grid/words";
import { choice, element, fillChoice } from "../view/dom";
import { colourKey } from "./colour-key";
import {
  type Attention,
  attentionOf,
  type Kind,
  largest,
  matrixPixels,
  strongest,
  tokenValues,
  visible,
} from "./matrices";
import type { AttentionMessage, Status } from "./model";
import { Working } from "./working";

const KINDS: readonly Kind[] = ["weights", "products"];
const NAMES = ["attention weights A", "A · dL/dA (first-order contribution to the loss, nats)"];
const QUANTITIES: Record<Kind, [string, string]> = {
  weights: ["attention weight", ""],
  products: ["contribution to the loss", "nats"],
};
const TOKEN_OPACITY = 80; // percent
const MATRIX_SIZE = 320;
const SPOKEN_KEYS = 3;

export class AttentionTab {
  readonly node = element("div");
  private readonly title = element("p", { class: "words" });
  private readonly kind = choice("What to show", (index) => this.show(KINDS[index] ?? "weights"));
  private readonly tokens = element("div", {
    class: "tokens",
    role: "group",
    tabindex: "0",
    "aria-label": "Tokens; arrow keys select a query token",
  });
  private readonly canvas = element("canvas", { class: "matrix", role: "img" });
  private readonly readout = element("div", { class: "readout", role: "status" });
  private readonly help = element("p", { class: "quiet" });
  private readonly body = element("div");
  private readonly content = element("div");
  private readonly working = new Working(this.content);
  private readonly tokenKey = element("div");
  private readonly matrixKey = element("div");
  private spans: HTMLElement[] = [];
  private attention: Attention | null = null;
  private shown: Kind = "weights";
  private query: number | null = null;

  constructor() {
    fillChoice(this.kind, NAMES, 0);
    this.body.append(
      element("div", { class: "row" }, element("label", {}, "Show", this.kind)),
      this.help,
      element(
        "div",
        { class: "split" },
        element("div", { class: "text" }, this.tokenKey, this.tokens),
        element(
          "div",
          {},
          this.canvas,
          element("div", { class: "quiet" }, "rows: queries, columns: keys"),
          this.matrixKey,
        ),
      ),
      this.readout,
    );
    this.canvas.addEventListener("pointermove", (event) => this.explain(event));
    this.canvas.addEventListener("pointerleave", () => this.readout.replaceChildren());
    this.canvas.addEventListener("click", (event) => this.choose(this.at(event).query));
    this.tokens.addEventListener("click", (event) => {
      const token = this.spans.indexOf(event.target as HTMLElement);
      if (token >= 0) this.choose(token);
    });
    this.tokens.addEventListener("keydown", (event) => this.move(event));
    this.node.append(this.working.node, this.content);
    this.refresh(null);
  }

  showStatus(status: Status): void {
    this.working.refresh(status.job === "attend" ? status : null);
  }

  refresh(message: AttentionMessage | null): void {
    this.attention = null;
    this.query = null;
    this.readout.replaceChildren();
    if (!message) {
      this.showMessage(
        'Press "Attention" next to a sample in the Head tab to see the attention of the head on it.',
      );
      return;
    }
    try {
      this.attention = attentionOf(message);
    } catch (error) {
      this.showMessage(`the attention cannot be drawn (${String(error)})`);
      return;
    }
    const { head, task, sample, score, loss, tokens, answer } = message;
    this.title.textContent = `${head} on sample ${sample} of ${task}: score ${number(score)} nats, loss ${number(loss)} nats, ${tokens.length} tokens`;
    this.spans = tokens.map((token, index) =>
      element("span", answer[index] ? { class: "answered" } : {}, visible(token)),
    );
    this.tokens.replaceChildren(...this.spans);
    this.content.replaceChildren(this.title, this.body);
    this.draw();
  }

  /** Show a text instead of a picture. */
  private showMessage(words: string): void {
    this.title.textContent = words;
    this.content.replaceChildren(this.title);
  }

  private show(kind: Kind): void {
    this.shown = kind;
    this.draw();
  }

  private choose(query: number): void {
    this.query = this.query === query ? null : query;
    this.draw();
  }

  private move(event: KeyboardEvent): void {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.key === "Escape") this.query = null;
    else if (step) this.query = Math.min(Math.max((this.query ?? -step) + step, 0), this.spans.length - 1);
    else return;
    event.preventDefault();
    this.draw();
    this.readout.textContent = this.aboutQuery();
    if (this.query !== null) this.spans[this.query]?.scrollIntoView({ block: "nearest" });
  }

  /** The chosen query and the keys with the largest values, for screen readers; empty without a query. */
  private aboutQuery(): string {
    const { attention, query } = this;
    if (!attention || query === null) return "";
    const values = tokenValues(attention, this.shown, query);
    const keys = strongest(values, SPOKEN_KEYS).map(
      (key) => `key ${this.named(key)}: ${number(values[key] ?? 0)}`,
    );
    return [`query ${this.named(query)}`, ...keys].join(", ");
  }

  /** The place and the text of a token: `3 " the"`. */
  private named(index: number): string {
    return `${index} ${JSON.stringify(this.attention?.message.tokens[index] ?? "")}`;
  }

  private draw(): void {
    const { attention } = this;
    if (!attention) return;
    const values = tokenValues(attention, this.shown, this.query);
    const most = largest(values) || 1;
    this.spans.forEach((span, index) => {
      const value = values[index] ?? 0;
      const share = Math.round((TOKEN_OPACITY * Math.abs(value)) / most);
      span.style.background = `color-mix(in srgb, ${value > 0 ? RISE : FALL} ${share}%, transparent)`;
      span.title = number(value);
      span.classList.toggle("query", index === this.query);
    });
    this.tokenKey.replaceChildren(this.key("Shading of the tokens", most, TOKEN_OPACITY, 1));
    this.help.textContent = `${this.explanation()} Answer tokens are underlined.`;
    this.drawMatrix(attention);
  }

  private key(subject: string, most: number, opacity: number, power: number): HTMLElement {
    const [quantity, units] = QUANTITIES[this.shown];
    const title = `${subject}: ${quantity}`;
    return colourKey({ title, units, most, opacity, signed: this.shown === "products", power });
  }

  private explanation(): string {
    const sign = "A larger attention weight would raise the loss (orange) or lower it (blue).";
    if (this.query !== null) {
      const row =
        this.shown === "weights"
          ? "Attention weights of the outlined query token."
          : `Contributions of the outlined query token. ${sign}`;
      return `${row} Click the token again to show all queries.`;
    }
    return this.shown === "weights"
      ? "Mean over the positions that predict the answer. Click a token to show its own attention weights."
      : `Sum over all queries; the values of all tokens add up to the score. ${sign}`;
  }

  private drawMatrix({ message, [this.shown]: matrix }: Attention): void {
    const { length } = matrix;
    this.canvas.width = this.canvas.height = length;
    const size = Math.min(640, Math.max(MATRIX_SIZE, length));
    this.canvas.style.width = `${size}px`;
    this.matrixKey.replaceChildren(
      this.key("Matrix, square-root scale", largest(matrix.values) || 1, 100, 2),
    );
    this.canvas.setAttribute("aria-label", `${length} x ${length} matrix of ${message.head}`);
    const context = this.canvas.getContext("2d");
    if (!context) return;
    const pixels = matrixPixels(matrix, this.query);
    context.putImageData(new ImageData(new Uint8ClampedArray(pixels.buffer), length), 0, 0);
  }

  private at(event: PointerEvent | MouseEvent): { query: number; key: number } {
    const box = this.canvas.getBoundingClientRect();
    const index = (offset: number, extent: number) =>
      Math.min(Math.max(Math.floor((offset / extent) * this.canvas.width), 0), this.canvas.width - 1);
    return {
      query: index(event.clientY - box.top, box.height),
      key: index(event.clientX - box.left, box.width),
    };
  }

  private explain(event: PointerEvent): void {
    if (!this.attention) return;
    const { query, key } = this.at(event);
    const { tokens } = this.attention.message;
    const value = this.attention[this.shown].values[query * tokens.length + key] ?? 0;
    this.readout.textContent = `query ${this.named(query)} → key ${this.named(key)}: ${number(value)}`;
  }
}
