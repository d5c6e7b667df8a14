/** Changes of traits that a browser sends to Python. */

import type { AnyModel } from "@anywidget/types";

/**
 * Set a trait here and in Python.
 *
 * `save_changes` also updates other browsers, but it delays a change until the kernel has answered the previous one, so
 * a cell that follows immediately would see the old value. The message is never delayed.
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
