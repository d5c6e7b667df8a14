/** The attention view: a sample's tokens, shaded by A or by A * dL/dA, and the matrix itself. */

import { FALL, RISE } from "../grid/colours";
import { number } from "../grid/words";
import { choice, element, fillChoice } from "../view/dom";
import {
  type Attention,
  attentionOf,
  type Kind,
  largest,
  matrixPixels,
  tokenValues,
  visible,
} from "./matrices";
import type { AttentionMessage } from "./model";

const KINDS: readonly Kind[] = ["weights", "products"];
const NAMES = ["attention weights A", "A · dL/dA (what they are worth to the loss, nats)"];
const MATRIX_SIZE = 320;

export class AttentionTab {
  readonly node = element("div");
  private readonly title = element("p", { class: "words" });
  private readonly kind = choice("What to show", (place) => this.show(KINDS[place] ?? "weights"));
  private readonly tokens = element("div", {
    class: "tokens",
    role: "group",
    tabindex: "0",
    "aria-label": "Tokens; arrow keys choose a query",
  });
  private readonly canvas = element("canvas", { class: "matrix", role: "img" });
  private readonly readout = element("div", { class: "readout", role: "status" });
  private readonly help = element("p", { class: "quiet" });
  private readonly body = element("div");
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
        this.tokens,
        element("div", {}, this.canvas, element("div", { class: "quiet" }, "rows: queries, columns: keys")),
      ),
      this.readout,
    );
    this.canvas.addEventListener("pointermove", (event) => this.explain(event));
    this.canvas.addEventListener("pointerleave", () => this.readout.replaceChildren());
    this.canvas.addEventListener("click", (event) => this.choose(this.at(event).query));
    this.tokens.addEventListener("click", (event) => {
      const place = this.spans.indexOf(event.target as HTMLElement);
      if (place >= 0) this.choose(place);
    });
    this.tokens.addEventListener("keydown", (event) => this.move(event));
    this.refresh(null);
  }

  refresh(message: AttentionMessage | null): void {
    this.attention = null;
    this.query = null;
    this.readout.replaceChildren();
    if (!message) {
      this.say("Choose a sample of a selected head to see its attention there.");
      return;
    }
    try {
      this.attention = attentionOf(message);
    } catch (error) {
      this.say(`this attention cannot be drawn (${String(error)})`);
      return;
    }
    const { head, task, sample, score, loss, tokens, answer } = message;
    this.title.textContent = `${head} on sample ${sample} of ${task}: score ${number(score)} nats, loss ${number(loss)} nats, ${tokens.length} tokens`;
    this.spans = tokens.map((token, place) =>
      element("span", answer[place] ? { class: "answered" } : {}, visible(token)),
    );
    this.tokens.replaceChildren(...this.spans);
    this.node.replaceChildren(this.title, this.body);
    this.draw();
  }

  /** Words instead of a picture. */
  private say(words: string): void {
    this.title.textContent = words;
    this.node.replaceChildren(this.title);
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
    const chosen = this.query === null ? null : this.spans[this.query];
    this.readout.textContent = chosen ? `query ${this.query} ${JSON.stringify(chosen.textContent)}` : "";
    chosen?.scrollIntoView({ block: "nearest" });
  }

  private draw(): void {
    const { attention } = this;
    if (!attention) return;
    const values = tokenValues(attention, this.shown, this.query);
    const most = largest(values) || 1;
    this.spans.forEach((span, place) => {
      const value = values[place] ?? 0;
      const share = Math.round((80 * Math.abs(value)) / most);
      span.style.background = `color-mix(in srgb, ${value > 0 ? RISE : FALL} ${share}%, transparent)`;
      span.title = number(value);
      span.classList.toggle("query", place === this.query);
    });
    this.help.textContent = `${this.explanation()} Tokens of the answer are underlined.`;
    this.drawMatrix(attention);
  }

  private explanation(): string {
    const worth = "More of such a weight would raise the loss (orange) or lower it (blue).";
    if (this.query !== null) {
      const of =
        this.shown === "weights"
          ? "What the outlined token looks at."
          : `Of the outlined token's weights. ${worth}`;
      return `${of} Click it again for all queries.`;
    }
    return this.shown === "weights"
      ? "Mean over the predictions of the answer; click a token for what it looks at itself."
      : `Sum over queries: adds up to the score. ${worth}`;
  }

  private drawMatrix({ message, [this.shown]: matrix }: Attention): void {
    const { length } = matrix;
    this.canvas.width = this.canvas.height = length;
    const size = Math.min(640, Math.max(MATRIX_SIZE, length));
    this.canvas.style.width = `${size}px`;
    this.canvas.setAttribute("aria-label", `${length} x ${length} matrix of ${message.head}`);
    const context = this.canvas.getContext("2d");
    if (!context) return;
    const pixels = matrixPixels(matrix, this.query);
    context.putImageData(new ImageData(new Uint8ClampedArray(pixels.buffer), length), 0, 0);
  }

  private at(event: PointerEvent | MouseEvent): { query: number; key: number } {
    const box = this.canvas.getBoundingClientRect();
    const place = (offset: number, extent: number) =>
      Math.min(Math.max(Math.floor((offset / extent) * this.canvas.width), 0), this.canvas.width - 1);
    return {
      query: place(event.clientY - box.top, box.height),
      key: place(event.clientX - box.left, box.width),
    };
  }

  private explain(event: PointerEvent): void {
    if (!this.attention) return;
    const { query, key } = this.at(event);
    const { tokens } = this.attention.message;
    const value = this.attention[this.shown].values[query * tokens.length + key] ?? 0;
    const name = (place: number) => `${place} ${JSON.stringify(tokens[place] ?? "")}`;
    this.readout.textContent = `query ${name(query)} → key ${name(key)}: ${number(value)}`;
  }
}
