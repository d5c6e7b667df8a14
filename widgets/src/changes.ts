/** Changes of traits that a browser sends to Python. */

import type { AnyModel } from "@anywidget/types";

/**
 * Set a trait here and in Python.
 *
 * `save_changes` tells other browsers too, but keeps a change back until the kernel has answered the one before: a cell
 * that follows at once would see the old value. The message is never kept back.
 */
export function change<State extends object, Name extends keyof State & string>(
  model: AnyModel<State>,
  name: Name,
  value: State[Name],
): void {
  model.set(name, value);
  model.save_changes();
  model.send({ changes: { [name]: value } });
}
