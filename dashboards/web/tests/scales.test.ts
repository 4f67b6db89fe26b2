import assert from "node:assert/strict";
import { test } from "node:test";
import { NO_DATA, colourOf, evenSteps, niceStep, scaleOf, stepOf } from "../src/scales";

test("an AQI falls into its EPA category", () => {
  const scale = scaleOf("nowcast_aqi", [], "dark");
  const steps = [0, 50, 51, 100, 101, 150, 151, 200, 201, 300, 301, 500, 640].map((value) => stepOf(scale, value));
  assert.deepEqual(steps, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 5]);
});

test("PM2.5 changes its step where the EPA's 2024 table does", () => {
  const scale = scaleOf("pm2_5_mean", [], "light");
  assert.deepEqual([9, 9.1, 35.4, 35.5, 55.4, 55.5].map((value) => stepOf(scale, value)), [0, 1, 1, 2, 2, 3]);
});

test("a value below the first step belongs to it", () => {
  assert.equal(stepOf(scaleOf("travel_time_index", [], "dark"), 0.93), 0);
});

test("slow is bad, so that speed's scale runs the other way", () => {
  const speed = scaleOf("space_mean_speed", [], "dark");
  const congestion = scaleOf("congestion_level", [], "dark");
  assert.equal(speed.worst, "low");
  assert.equal(speed.colours[0], congestion.colours[4]);
});

for (const indicator of ["nowcast_aqi", "european_aqi", "congestion_level", "feeder_load", "traffic_flow", "new_one"]) {
  for (const theme of ["dark", "light"] as const) {
    test(`${indicator} has one colour a step in the ${theme} theme, and none is that of no data`, () => {
      const { from, colours } = scaleOf(indicator, [3, 1200], theme);
      assert.equal(new Set(colours).size, from.length);
      assert.ok(!colours.includes(NO_DATA[theme]));
      assert.deepEqual([...from].sort((a, b) => a - b), [...from]);
    });
  }
}

test("no value has the colour of no data", () => {
  assert.equal(colourOf(scaleOf("aqi", [], "dark"), null, "dark"), NO_DATA.dark);
});

test("even steps are round numbers that cover the values", () => {
  assert.deepEqual(evenSteps([12, 410, 987], 5), [0, 200, 400, 600, 800]);
  assert.deepEqual(evenSteps([0.61, 0.83], 5), [0.6, 0.65, 0.7, 0.75, 0.8]);
  assert.equal(evenSteps([], 5).length, 5);
  assert.equal(new Set(evenSteps([42], 5)).size, 5);
  assert.equal(new Set(evenSteps([0], 5)).size, 5);
});

test("a step is rounded up to a number that reads well", () => {
  assert.deepEqual([0.043, 1, 17, 220, 0].map(niceStep), [0.05, 1, 20, 250, 1]);
});
