/** The explorer: `headnb.display.explorer.Explorer` through anywidget. */

import type { RenderProps } from "@anywidget/types";
import type { ExplorerModel } from "./explorer/model";
import { ExplorerView, TRAITS } from "./explorer/view";

function render({ model, el }: RenderProps<ExplorerModel>): () => void {
  const view = new ExplorerView(el, {
    get: (name) => model.get(name),
    set: (name, value) => {
      model.set(name, value);
      model.save_changes();
    },
    send: (command) => model.send(command),
  });
  const listeners = TRAITS.map((name) => [`change:${name}`, () => view.refresh(name)] as const);
  for (const [event, listener] of listeners) model.on(event, listener);
  return () => {
    for (const [event, listener] of listeners) model.off(event, listener);
    view.dispose();
  };
}

export default { render };
