/** Earlier selections, for undo. */

const MOST = 200;

/** Sets of selected cells before each change, the newest last. */
export type History = readonly ReadonlySet<number>[];

/** The history after a change of the selection from `before` to `after`. */
export function remembered(
  history: History,
  before: ReadonlySet<number>,
  after: ReadonlySet<number>,
): History {
  return sameCells(before, after) ? history : [...history, before].slice(-MOST);
}

export function sameCells(one: ReadonlySet<number>, other: ReadonlySet<number>): boolean {
  return one.size === other.size && [...one].every((cell) => other.has(cell));
}
