import assert from "node:assert/strict";
import { test } from "node:test";
import { type Row, addReading, mergeValues, rowAt, rowsOfOverview, rowsOfValues } from "../src/chart/data";
import type { Overview, Value } from "../src/contract";

const T0 = Date.parse("2026-11-22T12:00:00Z") / 1000;
const iso = (s: number): string => new Date(s * 1000).toISOString();

function value(window: number, number: number | null, more: Partial<Value> = {}): Value {
  return {
    indicator: "congestion_level",
    zone: "road-1",
    window: "5min",
    start: iso(T0 + window * 300),
    stop: iso(T0 + (window + 1) * 300),
    value: number,
    unit: "%",
    coverage: 1,
    n_good: 5,
    n_expected: 5,
    status: "ok",
    provisional: false,
    method: "congestion",
    method_version: "1",
    revision: 1,
    known: null,
    detail: {},
    ...more,
  };
}

function overview(): Overview {
  const series = { id: 7, device: "city/a", quantity: "speed", channel: "", unit: "km/h" };
  const columns = { count: [5, 0], good: [4, 0], mean: [40, null], min: [38, null], max: [44, null], last: [41, null] };
  return { edges: [iso(T0), iso(T0 + 300), iso(T0 + 600)], series: [{ ...series, ...columns }] };
}

const shape = (rows: readonly Row[]) => rows.map((row) => [(row.start - T0) / 300, (row.stop - T0) / 300, row.mean]);

test("values become rows in the order of time", () => {
  assert.deepEqual(shape(rowsOfValues([value(1, 20), value(0, 10)])), [
    [0, 1, 10],
    [1, 2, 20],
  ]);
});

test("missing windows become one empty row, so that the line breaks there", () => {
  assert.deepEqual(shape(rowsOfValues([value(0, 10), value(4, 50)])), [
    [0, 1, 10],
    [1, 4, null],
    [4, 5, 50],
  ]);
});

test("a new revision replaces its window, a new window follows", () => {
  const rows = rowsOfValues([value(0, 10), value(1, 20)]);
  const merged = mergeValues(rows, [value(1, 25, { revision: 2 }), value(2, 30)]);
  assert.deepEqual(shape(merged), [
    [0, 1, 10],
    [1, 2, 25],
    [2, 3, 30],
  ]);
  assert.equal(merged[1]?.value?.revision, 2);
});

test("an overview's buckets keep their extremes and their coverage", () => {
  const [first, second] = rowsOfOverview(overview(), 0, 60);
  assert.deepEqual([first?.min, first?.mean, first?.max, first?.coverage], [38, 40, 44, 0.8]);
  assert.deepEqual([second?.mean, second?.coverage], [null, 0]);
});

test("a counter has no mean: its last reading is drawn", () => {
  const answer = overview();
  const [series] = answer.series;
  assert.ok(series);
  series.mean = [null, null];
  assert.equal(rowsOfOverview(answer, 0, 60)[0]?.mean, 41);
});

test("a reading widens the bucket that it falls in", () => {
  const rows = addReading(rowsOfOverview(overview(), 0, 60), T0 + 400, 30, 60);
  assert.deepEqual([rows[1]?.min, rows[1]?.mean, rows[1]?.max, rows[1]?.count], [30, 30, 30, 1]);
  const more = addReading(rows, T0 + 460, 50, 60);
  assert.deepEqual([more[1]?.min, more[1]?.mean, more[1]?.max, more[1]?.count], [30, 40, 50, 2]);
  assert.equal(more[1]?.coverage, 0.4);
});

test("a reading after the last bucket begins new ones of the same width", () => {
  const rows = addReading(rowsOfOverview(overview(), 0, 60), T0 + 1000, 33, 60);
  assert.deepEqual(shape(rows), [
    [0, 1, 40],
    [1, 2, null],
    [2, 3, null],
    [3, 4, 33],
  ]);
});

test("a reading before the chart changes nothing", () => {
  const rows = rowsOfOverview(overview(), 0, 60);
  assert.deepEqual(addReading(rows, T0 - 5, 1, 60), rows);
});

test("the row under the cursor is the one that holds the time, or the nearest", () => {
  const rows = rowsOfValues([value(0, 10), value(1, 20)]);
  assert.equal(rowAt(rows, T0 + 310)?.mean, 20);
  assert.equal(rowAt(rows, T0 + 9999)?.mean, 20);
  assert.equal(rowAt([], T0), null);
});
