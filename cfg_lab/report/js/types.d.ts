// The data of a page, as cfg_lab/report/payload.py writes it. Only the type checker reads this file.

export type Verdict = "better" | "worse" | "different" | "lead" | "not_significant" | "unknown";

/** A setting that differs between cells. */
export interface Axis {
  key: string;
  name: string;
  title: string;
  values: (string | number)[];
  numeric: boolean;
}

/** Each field is a list with one entry per cell. */
export interface Cells {
  id: string[];
  label: string[];
  /** For each cell one index per axis, into the values of that axis. */
  point: number[][];
  texts: number[];
  /** The cell that this one is compared with; a baseline names itself. */
  baseline: (number | null)[];
  /** Whether the requests of the cell ran no negative. */
  unguided: boolean[];
}

/** Differences to the baseline, as columns by cell; null for cells that are not compared. */
export interface Changes {
  difference: (number | null)[];
  low: (number | null)[];
  high: (number | null)[];
  p: (number | null)[];
  p_holm: (number | null)[];
  effect: (number | null)[];
  needed: (number | null)[];
  verdict: (Verdict | null)[];
}

/** A metric, with columns by cell. */
export interface Metric {
  name: string;
  better: "higher" | "lower" | null;
  role: "aim" | "price" | "other";
  mean: (number | null)[];
  low: (number | null)[];
  high: (number | null)[];
  n: number[];
  change: Changes;
}

/** The Pareto front of two metrics, with columns by cell. */
export interface Front {
  x: string;
  y: string;
  on_front: boolean[];
  probability: (number | null)[];
}

/** A number that is recorded for each token. */
export interface TraceField {
  name: string;
  label: string;
  kind: "log-prob" | "nats" | "number";
}

export interface PageData {
  name: string;
  axes: Axis[];
  /** Index of the axis that curves are drawn over. */
  curve_axis: number | null;
  cells: Cells;
  verdicts: Record<Verdict, string>;
  metrics: Metric[];
  fronts: Front[];
  /** Number of prompts with different contexts. Intervals are computed over them. */
  distinct_prompts: number;
  prompts: { id: string[]; text: string[]; negative: string[] };
  /** One row per text, as indices. */
  rows: { cell: number[]; prompt: number[]; sample: number[]; completion: number[] };
  completions: {
    text: string[];
    finish: string[];
    tokens: number[];
    pack: (number | null)[];
    scores: Record<string, (number | null)[]>;
  };
  texts_left_out: number;
  /** Says which texts of a very large study the page holds; "" if it holds all. */
  texts_shown: string;
  tokens: {
    available: boolean;
    alternatives: boolean;
    note: string;
    /** Smallest change, in nats, of each level of colour. */
    levels: number[];
    fields: TraceField[];
    distributions: string[];
    /** A token's change is its log-prob under the second of these, minus that under the first. */
    change: [string, string];
  };
}

/** The mean of a metric in a cell. The interval is missing if it is unknown. */
export interface Estimate {
  cell: number;
  mean: number;
  interval: [number, number] | null;
  n: number;
}

/** The difference of a metric between a cell and its baseline. */
export interface Change {
  difference: number | null;
  low: number | null;
  high: number | null;
  p: number | null;
  p_holm: number | null;
  effect: number | null;
  needed: number | null;
  verdict: Verdict;
}

/** The numbers of one text's tokens; cfg_lab/report/token_packs.py documents them. */
export interface PackedText {
  pieces: number[];
  trace: Record<string, (number | null)[]>;
  alternatives: Record<string, number[][]>;
}

export interface Pack {
  pieces: string[];
  texts: Record<string, PackedText>;
}

export interface Token {
  piece: string;
  /** By the name of the trace field. */
  numbers: Record<string, number | null>;
  /** By how much guidance changed its log-prob, in nats. */
  change: number | null;
  alternatives: { distribution: string; tokens: Alternative[] }[];
}

export interface Alternative {
  piece: string;
  logProb: number;
}
