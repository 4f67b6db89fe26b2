import assert from "node:assert/strict";
import { test } from "node:test";
import { payloadFault } from "../src/command";
import type { LedgerRow } from "../src/contract";
import { bytes, latency } from "../src/format";
import { linesOfDevices, linesOfHours, ordered, shareOf, total } from "../src/intake/counts";
import { excerpt, spell } from "../src/intake/excerpt";
import { hintText, reasonText } from "../src/reasons";

const row = (more: Partial<LedgerRow>): LedgerRow => ({
  device: "town/a",
  start: null,
  messages: 10,
  duplicates: 1,
  readings: 12,
  accepted: 9,
  flagged: 0,
  late: 2,
  recovered: 0,
  rejected: { bad_json: 2, bad_time: 1 },
  missing: 4,
  ...more,
});
const itself = (id: string) => id;

test("devices have the API's lines, and the one that misses most leads", () => {
  const lines = linesOfDevices([row({}), row({ device: "town/b", missing: 40 }), row({ device: "", missing: null })]);
  assert.deepEqual(lines.map(({ id, missing }) => [id, missing]), [["town/a", 4], ["town/b", 40], ["", null]]);
  assert.deepEqual(ordered(lines, "missing", itself).map(({ id }) => id), ["town/b", "town/a", ""]);
  assert.deepEqual(ordered(lines, "id", itself).map(({ id }) => id), ["", "town/a", "town/b"]);
  assert.deepEqual(lines.map(({ rejected }) => rejected), [3, 3, 3]);
});

test("a sum adds up what is known, and is not known where nothing is", () => {
  const lines = linesOfDevices([row({}), row({ device: "town/b", missing: 6 }), row({ device: "", missing: null })]);
  assert.deepEqual([total(lines, "missing"), total(lines, "rejected"), total([], "missing")], [10, 9, null]);
  assert.equal(total(linesOfDevices([row({ missing: null }), row({ device: "", missing: null })]), "missing"), null);
  assert.equal(total(linesOfDevices([row({ missing: null }), row({ missing: 0 })]), "missing"), 0);
});

test("a bar is a share of the largest count", () => {
  const lines = linesOfDevices([row({}), row({ device: "town/b", missing: 8 }), row({ device: "", missing: null })]);
  assert.deepEqual(lines.map(shareOf(lines, "missing")), [0.5, 1, 0]);
  assert.deepEqual(lines.map(shareOf(lines, "flagged")), [0, 0, 0]);
});

test("hours have the API's lines, the newest first", () => {
  const rows = ["08", "09", "11"].map((hour, messages) => row({ start: `2026-11-22T${hour}:00:00Z`, messages }));
  assert.deepEqual(linesOfHours(rows).map(({ id, messages }) => [new Date(id).getUTCHours(), messages]), [[11, 2], [9, 1], [8, 0]]);
  assert.deepEqual(rows.map(({ messages }) => messages), [0, 1, 2]); // the answer itself stays as it is
});

test("the first bad byte is marked, as the whole letter that it is part of", () => {
  assert.deepEqual(excerpt('{"v": x}', "utf-8", 6), { before: '{"v": ', bad: "x", after: "}", cutBefore: false, cutAfter: false });
  assert.equal(excerpt("аұа!", "utf-8", 3).bad, "ұ"); // the second byte of the second letter
  assert.equal(excerpt(btoa("ab\xff\xfec"), "base64", 2).bad, "\\xff");
  assert.equal(excerpt(btoa("ab\xff\xfec"), "base64", 2).after, "\\xfec");
});

test("of a long payload only what lies around the byte is shown", () => {
  const long = "қ".repeat(500);
  const part = excerpt(long, "utf-8", 400);
  assert.deepEqual([part.bad, part.cutBefore, part.cutAfter], ["қ", true, true]);
  assert.match(part.before, /^қ{20}$/);
  assert.match(part.after, /^қ{40}$/);
  assert.deepEqual([excerpt(long, "utf-8", null).before, excerpt(long, "utf-8", 5000).bad], ["", ""]);
});

test("what cannot be seen is spelled out", () => {
  assert.equal(spell(new TextEncoder().encode("a\u0000\u202eb\n")), "a\\x00\\xe2\\x80\\xaeb\\x0a");
});

test("a payload is checked before it is sent", () => {
  for (const good of ['{"reboot": true}', " {} ", '{"n": 12345678901234567890}']) assert.equal(payloadFault(good), null);
  for (const bad of ["[1]", "null", '"a"', "7"]) assert.equal(payloadFault(bad)?.[0], "commands.notobject");
  assert.deepEqual(payloadFault('{"a": 1,}'), ["commands.badjson.at", { position: 9 }]);
  assert.deepEqual(payloadFault('{"a":'), ["commands.badjson", {}]);
  assert.equal(payloadFault(`{"a": "${"x".repeat(60_000)}"}`)?.[0], "commands.toolarge");
});

test("a reason of health is said with its parameters; one that is not known keeps the server's words", () => {
  assert.equal(reasonText({ code: "disk_full", params: { free: 1_500_000 } }), "the disk is full (1.5 MB free): nothing is taken");
  assert.equal(reasonText({ code: "projector_behind", params: { part: "projector", lag_s: 95.2 } }), "processing is behind by 95 s");
  assert.equal(reasonText({ code: "disk_low" }), "the disk is nearly full (– free)");
  assert.equal(reasonText({ code: "moon_full" }), "moon_full");
  assert.equal(hintText({ code: "moon_full", hint: "wait" }), "wait");
});

test("short times and sizes are written for people", () => {
  assert.deepEqual([0.0042, 0.25, 1.5].map((s) => latency("en", s)), ["4.2 ms", "250 ms", "2 s"]);
  assert.deepEqual([0, 999, 1000, 123_456_789, 5e12].map((size) => bytes("en", size)), ["0 B", "999 B", "1.0 kB", "123 MB", "5.0 TB"]);
});
