/** Renderer of head grids and `*.heads.json` files for JupyterLab and Notebook. */

import type { IRenderMime } from "@jupyterlab/rendermime-interfaces";
import { Widget } from "@lumino/widgets";
import { MIME_TYPE } from "./grid/payload";
import { GridView } from "./view/grid-view";

class HeadGridRenderer extends Widget implements IRenderMime.IRenderer {
  private readonly view = new GridView(this.node);

  constructor() {
    super();
    this.addClass("headnb-grid");
  }

  async renderModel(model: IRenderMime.IMimeModel): Promise<void> {
    this.view.show(model.data[MIME_TYPE]);
  }

  override dispose(): void {
    if (!this.isDisposed) this.view.dispose();
    super.dispose();
  }
}

const extension: IRenderMime.IExtension = {
  id: "headnb:plugin",
  description: "Draws head grids, in notebooks and from *.heads.json files.",
  rendererFactory: { safe: true, mimeTypes: [MIME_TYPE], createRenderer: () => new HeadGridRenderer() },
  rank: 0,
  dataType: "string",
  fileTypes: [
    {
      name: "heads",
      displayName: "Head grid",
      extensions: [".heads.json"],
      mimeTypes: [MIME_TYPE],
      fileFormat: "text",
    },
  ],
  documentWidgetFactoryOptions: {
    name: "Head grid",
    modelName: "text",
    primaryFileType: "heads",
    fileTypes: ["heads"],
    defaultFor: ["heads"],
  },
};

export default extension;
