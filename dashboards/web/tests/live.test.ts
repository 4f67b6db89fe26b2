import assert from "node:assert/strict";
import { test } from "node:test";
import { path } from "../src/api";
import { backoff } from "../src/live";

test("waits double up to the largest, half of each left to chance", () => {
  const longest = [0, 1, 2, 3, 4, 5, 60].map((attempt) => backoff(attempt, [1000, 15_000], 1));
  assert.deepEqual(longest, [1000, 2000, 4000, 8000, 15_000, 15_000, 15_000]);
  assert.equal(backoff(0, [1000, 15_000], 0), 500);
});

test("a query leaves out what is empty, and escapes the rest", () => {
  assert.equal(path("/values", { zone: "road 1&2", window: "", cursor: null, limit: 5 }), "/values?zone=road%201%262&limit=5");
  assert.equal(path("/values"), "/values");
});
