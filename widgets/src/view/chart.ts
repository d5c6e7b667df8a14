/** A chart of an offline page, drawn by the page's BokehJS shortly before the chart scrolls into view. */

interface Embedding {
  embed_item(item: unknown, target: HTMLElement): Promise<{ clear(): void }>;
}

const AHEAD = "400px";

/**
 * Draw a figure, given as Bokeh's JSON, into `host`, and draw it again when the page turns light or dark. The page's text
 * colour replaces the colour `ink` in the JSON. Without Bokeh, or if it fails, the static picture stays.
 */
export function showChart(host: HTMLElement, figure: string, ink: string): void {
  const bokeh = (globalThis as { Bokeh?: { embed: Embedding } }).Bokeh;
  if (!bokeh) return;
  let views: { clear(): void } | null = null;

  const draw = async () => {
    const colour = getComputedStyle(host).color;
    const item: unknown = JSON.parse(figure, (_, value) => (value === ink ? colour : value));
    const frame = host.parentElement;
    host.style.minHeight = `${frame?.getBoundingClientRect().height ?? 0}px`;
    frame?.classList.add("drawn");
    try {
      views?.clear();
      host.replaceChildren();
      views = await bokeh.embed.embed_item(item, host);
      host.style.minHeight = "";
    } catch (error) {
      frame?.classList.remove("drawn");
      throw error;
    }
  };

  const observer = new IntersectionObserver(
    (entries) => {
      if (!entries.some((entry) => entry.isIntersecting)) return;
      observer.disconnect();
      void draw();
      matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => void draw());
    },
    { rootMargin: AHEAD },
  );
  observer.observe(host.parentElement ?? host);
}
