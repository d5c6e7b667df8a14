/** Front end of `headnb.explorer.grid_widget.HeadGridWidget`, through anywidget. */

import type { RenderProps } from "@anywidget/types";
import { GridView } from "./view/grid-view";

interface HeadGridModel {
  /** The payload, created in Python. */
  payload: unknown;
  /** Names of the selected heads, in the grid's order. */
  selected: string[];
}

function render({ model, el }: RenderProps<HeadGridModel>): () => void {
  const view = new GridView(el, {
    selected: (names) => {
      model.set("selected", names);
      model.save_changes();
    },
  });
  const onPayload = () => view.show(model.get("payload"));
  const onSelected = () => view.select(model.get("selected"));
  model.on("change:payload", onPayload);
  model.on("change:selected", onSelected);
  onPayload();
  onSelected();
  return () => {
    model.off("change:payload", onPayload);
    model.off("change:selected", onSelected);
    view.dispose();
  };
}

export default { render };
