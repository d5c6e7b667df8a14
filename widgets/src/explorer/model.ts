/** Traits and commands that Python's `Explorer` shares with the browser: see `headnb/explorer/explorer.py`. */

export interface Choices {
  readonly model: string;
  readonly tasks: readonly string[];
  /** Name and one-line description of each method; empty if there is no model to score. */
  readonly methods: Readonly<Record<string, string>>;
}

/** What the kernel does in the background: score a task, or compute for the Attention or the Intervene tab. */
export type Job = "run" | "attend" | "ablate";

export interface Status {
  readonly state: "idle" | "running" | "stopping";
  /** Empty if idle. */
  readonly job: Job | "";
  readonly line: string;
  readonly done: number;
  readonly total: number;
  readonly error: string;
  readonly note: string;
}

export interface StrongSample {
  /** Index of the sample in the task; -1 if the task's samples are not available. */
  readonly place: number;
  readonly id: string;
  readonly score: number;
  readonly loss: number | null;
  readonly prompt: string;
  readonly completion: string;
}

export interface HeadDetail {
  readonly head: string;
  readonly task: string;
  readonly units: string;
  readonly samples: number;
  readonly mean: number | null;
  readonly spread: number | null;
  readonly counts: readonly number[];
  readonly edges: readonly number[];
  readonly strongest: readonly StrongSample[];
}

export interface AttentionMessage {
  readonly head: string;
  readonly task: string;
  readonly sample: string;
  readonly tokens: readonly string[];
  /** 1 where the token is part of the answer. */
  readonly answer: readonly number[];
  readonly score: number;
  readonly loss: number;
  /** A and A * dL/dA, float32, row by row. */
  readonly weights: DataView;
  readonly products: DataView;
}

export interface AblationRow {
  readonly task: string;
  readonly samples: number;
  readonly before: number;
  readonly after: number;
  readonly change: number;
  readonly low: number | null;
  readonly high: number | null;
  readonly controls: readonly number[];
}

export interface Ablation {
  readonly heads: readonly string[];
  readonly factor: number;
  readonly rows: readonly AblationRow[];
  readonly generation: {
    readonly task: string;
    readonly sample: string;
    readonly prompt: string;
    readonly before: string;
    readonly after: string;
  } | null;
}

/** A trait is an empty object until Python sets it. */
type Maybe<Trait> = Trait | Record<string, never>;

export interface ExplorerModel {
  payload: unknown;
  selected: string[];
  focused: string;
  task: string;
  method: string;
  samples: number;
  choices: Choices;
  status: Status;
  head: Maybe<HeadDetail>;
  attention: Maybe<AttentionMessage>;
  ablation: Maybe<Ablation>;
}

export type Command =
  | { do: "run" | "stop" }
  | { do: "attend"; head: string; place: number }
  | { do: "ablate"; factor: number; heads: readonly string[]; tasks: readonly string[]; controls: number };

export function given<Trait extends object>(found: Maybe<Trait>): Trait | null {
  return Object.keys(found).length ? (found as Trait) : null;
}
