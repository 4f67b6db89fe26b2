import assert from "node:assert/strict";
import { test } from "node:test";
import { MONTHS, WEEKDAYS, ago, cityTime, clock, day, digitsOf, moment, number, percent, range, span, unitOf } from "../src/format";

const ALMATY = "Asia/Almaty";
const at = (text: string): number => Date.parse(text);

const numbers: [Parameters<typeof number>, string][] = [
  [["en", 1234567.891, 2], "1,234,567.89"],
  [["ru", 1234567.891, 2], "1\u00a0234\u00a0567,89"],
  [["kk", 1234567.891, 2], "1\u00a0234\u00a0567,89"],
  [["en", -5.25, 1], "\u22125.3"],
  [["en", -0.04, 1], "0.0"],
  [["ru", 999, 0], "999"],
  [["kk", NaN, 0], "–"],
  [["kk", Infinity, 0], "–"],
];
for (const [args, expected] of numbers) {
  test(`${args[1]} with ${args[2]} decimals in ${args[0]} is ${expected}`, () => assert.equal(number(...args), expected));
}

test("decimals follow the unit, else about three digits", () => {
  assert.equal(digitsOf("ug/m3", 35.44), 1);
  assert.equal(digitsOf("%", 35.44), 0);
  assert.deepEqual([1234.5, 12.34, 1.234, 7].map((value) => digitsOf("kWh", value)), [0, 1, 2, 0]);
});

test("an index is known by its scale, not by the unit one", () => {
  assert.equal(unitOf("nowcast_aqi", "1"), "AQI");
  assert.equal(unitOf("european_aqi", "1"), "band");
  assert.equal(unitOf("travel_time_index", "1"), "1");
});

test("a coverage says 100 % only when nothing is missing, and 0 % only when nothing is there", () => {
  assert.deepEqual([1, 0.999, 0.5, 0.001, 0].map((share) => percent("en", share)), ["100%", "99%", "50%", "1%", "0%"]);
  assert.equal(percent("ru", 0.5), "50\u00a0%");
});

test("the clock shows the city's time on both sides of its change of zone in 2024", () => {
  assert.equal(clock(at("2024-02-29T17:59:59Z"), ALMATY), "23:59:59");
  assert.equal(clock(at("2024-03-01T18:00:00Z"), ALMATY), "23:00:00");
});

test("midnight is 00:00 of the new day", () => {
  const { day: date, hour, minute, weekday } = cityTime(at("2026-11-22T19:00:00Z"), ALMATY);
  assert.deepEqual({ date, hour, minute, weekday }, { date: 23, hour: 0, minute: 0, weekday: 1 });
});

test("days are named in three languages", () => {
  const noon = at("2026-11-22T07:00:00Z");
  assert.equal(day("en", noon, ALMATY, true), "Sun, 22 Nov");
  assert.equal(day("ru", noon, ALMATY, true), "вс, 22 нояб.");
  assert.equal(day("kk", noon, ALMATY, true), "жс, 22 қар.");
  for (const names of Object.values(MONTHS)) assert.equal(new Set(names).size, 12);
  for (const names of Object.values(WEEKDAYS)) assert.equal(new Set(names).size, 7);
});

test("a moment of another day carries its date", () => {
  const now = at("2026-11-22T12:00:00Z");
  assert.equal(moment("en", at("2026-11-22T05:10:00Z"), now, ALMATY), "10:10");
  assert.equal(moment("ru", at("2026-11-21T05:10:00Z"), now, ALMATY), "21 нояб., 10:10");
});

test("a window is a range of times, a day is its date", () => {
  const now = at("2026-11-22T12:00:00Z");
  assert.equal(range("en", at("2026-11-22T11:55:00Z"), at("2026-11-22T12:00:00Z"), now, ALMATY), "16:55–17:00");
  assert.equal(range("kk", at("2026-11-20T19:00:00Z"), at("2026-11-21T19:00:00Z"), now, ALMATY), "21 қар.");
});

const ages: [number, string, string, string][] = [
  [0, "just now", "только что", "жаңа ғана"],
  [12_000, "12 s ago", "12 с назад", "12 с бұрын"],
  [5 * 60_000, "5 min ago", "5 мин назад", "5 мин бұрын"],
  [3 * 3600_000, "3 h ago", "3 ч назад", "3 сағ бұрын"],
  [2 * 86_400_000, "2 days ago", "2 дня назад", "2 күн бұрын"],
  [-3000, "just now", "только что", "жаңа ғана"],
];
for (const [ms, en, ru, kk] of ages) {
  test(`${ms} ms ago is said in three languages`, () => {
    assert.deepEqual([ago("en", ms), ago("ru", ms), ago("kk", ms)], [en, ru, kk]);
  });
}

test("a duration is said in three languages", () => {
  assert.deepEqual((["en", "ru", "kk"] as const).map((lang) => span(lang, 90 * 60_000)), ["2 h", "2 ч", "2 сағ"]);
});
