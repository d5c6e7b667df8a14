/** How reliable a panel is: the same fields, titles and line as in `headnb/display/evidence.py`. */

/** What a payload says of a panel's reliability, by its name there; `title` is that of a table's column. */
const FIELDS = {
  samples: { title: "samples", digits: 0 },
  runs: { title: "runs", digits: 0 },
  reliability: { title: "reliability", digits: 2 },
  samples_for_090: { title: "samples for 0.90", digits: 0 },
  runs_for_090: { title: "runs for 0.90", digits: 0 },
} as const;

export type EvidenceField = keyof typeof FIELDS;
/** What is not known is null. */
export type Evidence = { readonly [Name in EvidenceField]: number | null };

const NAMES = Object.keys(FIELDS) as EvidenceField[];
const FEWEST_SAMPLES = 4; // below, no reliability is known

/** Every field as `read` gives it. */
export function evidenceFrom(read: (name: EvidenceField) => number | null): Evidence {
  return Object.fromEntries(NAMES.map((name) => [name, read(name)])) as Evidence;
}

export const UNKNOWN = evidenceFrom(() => null);

/** The fields that a table of these panels has columns for; runs only where some panel has several. */
export function evidenceShown(panels: readonly Evidence[]): EvidenceField[] {
  const several = panels.some(({ runs }) => (runs ?? 1) > 1);
  return NAMES.filter((name) => several || !name.startsWith("runs"));
}

export function evidenceTitle(name: EvidenceField): string {
  return FIELDS[name].title;
}

/** A field as text, or a dash. */
export function evidenceText(panel: Evidence, name: EvidenceField): string {
  return panel[name]?.toFixed(FIELDS[name].digits).replace("-", "−") ?? "–";
}

/**
 * `Reliability 0.71 (40 samples, 3 runs); more samples alone cannot give 0.90: at least 9 runs`; empty for numbers of
 * which no count of samples is known.
 */
export function reliabilityLine(panel: Evidence): string {
  const { samples, reliability } = panel;
  if (samples === null) return "";
  if (samples === 0) return "Reliability not known";
  if (reliability === null) {
    return samples < FEWEST_SAMPLES
      ? `Reliability not known: fewer than ${FEWEST_SAMPLES} samples`
      : `Reliability not known (${counted(panel)})`;
  }
  if (reliability <= 0) return `Reliability not above 0 (${counted(panel)}): nothing but noise is seen`;
  return [`Reliability ${reliability.toFixed(2)} (${counted(panel)})`, needed(panel)]
    .filter(Boolean)
    .join("; ");
}

function counted({ samples, runs }: Evidence): string {
  return `${samples} sample${samples === 1 ? "" : "s"}${(runs ?? 1) > 1 ? `, ${runs} runs` : ""}`;
}

function needed({ samples_for_090: samples, runs, runs_for_090: least }: Evidence): string {
  if (samples) return samples === 1 ? "about 1 sample gives 0.90" : `about ${samples} samples give 0.90`;
  return (least ?? 0) > (runs ?? 1) ? `more samples alone cannot give 0.90: at least ${least} runs` : "";
}
