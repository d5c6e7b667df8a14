/** Front end of `headnb.explorer.explorer.Explorer`, through anywidget. */

import type { RenderProps } from "@anywidget/types";
import { change } from "./changes";
import type { ExplorerModel } from "./explorer/model";
import { ExplorerView, TRAITS } from "./explorer/view";

/** One instance per widget model; closing its last view stops the running computation. */
export default () => {
  let views = 0;

  function render({ model, el }: RenderProps<ExplorerModel>): () => void {
    const view = new ExplorerView(el, {
      get: (name) => model.get(name),
      set: (name, value) => change(model, name, value),
      send: (command) => model.send(command),
    });
    const listeners = TRAITS.map((name) => [`change:${name}`, () => view.refresh(name)] as const);
    for (const [event, listener] of listeners) model.on(event, listener);
    views += 1;
    return () => {
      for (const [event, listener] of listeners) model.off(event, listener);
      view.dispose();
      views -= 1;
      if (views === 0) model.send({ do: "stop" });
    };
  }

  return { render };
};
