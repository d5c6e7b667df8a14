/** Front end of `headnb.explorer.grid_widget.HeadGridWidget`, through anywidget. */

import type { RenderProps } from "@anywidget/types";
import { change } from "./changes";
import { GridView } from "./view/grid-view";

interface HeadGridModel {
  /** The payload, created in Python. */
  payload: unknown;
  /** Names of the selected heads, in the grid's order. */
  selected: string[];
  /** An error of Python, such as an exception in a callback; empty if there is none. */
  problem: string;
}

function render({ model, el }: RenderProps<HeadGridModel>): () => void {
  const view = new GridView(el, {
    selected: (names) => change(model, "selected", names),
  });
  const onPayload = () => view.show(model.get("payload"));
  const onSelected = () => view.select(model.get("selected"));
  const onProblem = () => view.warn(model.get("problem"));
  model.on("change:payload", onPayload);
  model.on("change:selected", onSelected);
  model.on("change:problem", onProblem);
  onPayload();
  onSelected();
  onProblem();
  return () => {
    model.off("change:payload", onPayload);
    model.off("change:selected", onSelected);
    model.off("change:problem", onProblem);
    view.dispose();
  };
}

export default { render };
