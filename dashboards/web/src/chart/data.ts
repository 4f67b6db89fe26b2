/** Rows of a chart, made from what the server says and kept current by what arrives. Pure; times are Unix seconds. */
import type { Overview, Value } from "../contract";

export interface Row {
  start: number;
  stop: number;
  mean: number | null;
  min: number | null;
  max: number | null;
  coverage: number | null;
  count: number; // readings in the row, where it is one of a series
  value: Value | null; // what stands behind the row, where it is one of an indicator
}

const seconds = (time: string): number => Date.parse(time) / 1000;

export function rowOf(value: Value): Row {
  const number = value.value;
  return {
    start: seconds(value.start),
    stop: seconds(value.stop),
    mean: number,
    min: number,
    max: number,
    coverage: value.coverage,
    count: value.n_good,
    value,
  };
}

const gap = (start: number, stop: number): Row => ({
  start,
  stop,
  mean: null,
  min: null,
  max: null,
  coverage: 0,
  count: 0,
  value: null,
});

/** Make rows of values in the order of time, with an empty row wherever windows are missing. */
export function rowsOfValues(values: readonly Value[]): Row[] {
  const rows: Row[] = [];
  for (const row of values.map(rowOf).sort((a, b) => a.start - b.start)) {
    const before = rows.at(-1);
    if (before && row.start > before.stop) rows.push(gap(before.stop, row.start));
    rows.push(row);
  }
  return rows;
}

/** Put values that arrived into rows: a new revision replaces, a new window follows. */
export function mergeValues(rows: readonly Row[], values: readonly Value[]): Row[] {
  const byStart = new Map(rows.flatMap((row) => (row.value ? [[row.value.start, row.value]] : [])));
  for (const value of values) byStart.set(value.start, value);
  return rowsOfValues([...byStart.values()]);
}

/** Make rows of one series of an overview. `interval_s` is how often the device promises a reading. */
export function rowsOfOverview(overview: Overview, index: number, interval_s: number): Row[] {
  const series = overview.series[index];
  if (!series) return [];
  const edges = overview.edges.map(seconds);
  return series.count.map((count, i) => {
    const [start = 0, stop = start] = [edges[i], edges[i + 1] ?? 2 * (edges[i] ?? 0) - (edges[i - 1] ?? 0)];
    const expected = Math.max(1, Math.floor((stop - start) / interval_s));
    return {
      start,
      stop,
      mean: series.mean[i] ?? series.last?.[i] ?? null,
      min: series.min[i] ?? null,
      max: series.max[i] ?? null,
      coverage: Math.min(1, (series.good[i] ?? 0) / expected),
      count: count ?? 0,
      value: null,
    };
  });
}

function widened(row: Row, value: number, share: number): Row {
  const count = row.count + 1;
  return {
    ...row,
    count,
    mean: row.mean === null ? value : row.mean + (value - row.mean) / count,
    min: row.min === null ? value : Math.min(row.min, value),
    max: row.max === null ? value : Math.max(row.max, value),
    coverage: Math.min(1, (row.coverage ?? 0) + share),
  };
}

/** Add a reading to the row that its time falls in, or begin new rows of the same width after the last one. */
export function addReading(rows: readonly Row[], time: number, value: number, interval_s: number): Row[] {
  const last = rows.at(-1);
  if (!last || time < (rows[0]?.start ?? 0)) return [...rows];
  const width = last.stop - last.start;
  const grown = [...rows];
  for (let start = last.stop; start <= time && grown.length < 5000; start += width) grown.push(gap(start, start + width));
  const i = grown.findIndex((row) => time < row.stop);
  const row = grown[i];
  if (row) grown[i] = widened(row, value, interval_s / width);
  return grown;
}

/** Find the row that holds a time, or the nearest one. */
export function rowAt(rows: readonly Row[], time: number): Row | null {
  let nearest: Row | null = null;
  let distance = Infinity;
  for (const row of rows) {
    const away = time < row.start ? row.start - time : Math.max(0, time - row.stop);
    if (away < distance) [nearest, distance] = [row, away];
  }
  return nearest;
}
