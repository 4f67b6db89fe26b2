import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import { test } from "node:test";
import { type Key, LANGS, TABLES, lang, nameOf, plural, t, tr, translate } from "../src/i18n";

const keys = Object.keys(TABLES.en) as Key[];
const forms = (message: string | readonly string[]): readonly string[] => (typeof message === "string" ? [message] : message);
const params = (text: string): string => [...text.matchAll(/\{(\w+)\}/g)].map(([, name]) => name).sort().join(" ");

for (const { id, name } of LANGS) {
  test(`${name} has every message, and no other`, () => {
    assert.deepEqual(Object.keys(TABLES[id]).sort(), [...keys].sort());
  });

  test(`${name} fills the same blanks as English, in every plural form`, () => {
    for (const key of keys) {
      const wanted = params(forms(TABLES.en[key])[0] ?? "");
      for (const form of forms(TABLES[id][key])) assert.equal(params(form), wanted, `${key}: ${form}`);
    }
  });

  test(`${name} has as many plural forms as its grammar`, () => {
    const grammar = { en: 2, ru: 3, kk: 1 }[id];
    for (const key of keys) {
      if (typeof TABLES.en[key] === "string") assert.equal(typeof TABLES[id][key], "string", key);
      else assert.equal(TABLES[id][key].length, grammar, key);
    }
  });

  test(`${name} leaves no message empty`, () => {
    for (const key of keys) for (const form of forms(TABLES[id][key])) assert.notEqual(form.trim(), "", key);
  });
}

test("every message is used: by its key, or by a family of keys", () => {
  const files = readdirSync("src", { recursive: true, encoding: "utf8" }).filter((file) => /\.tsx?$/.test(file) && !file.startsWith("i18n/"));
  const code = files.map((file) => readFileSync(`src/${file}`, "utf8")).join("\n");
  const families = [...code.matchAll(/[`"]([a-z_]+(?:\.[a-z]+)*)(?:\.\$\{|", )/g)].map(([, prefix]) => prefix);
  const unused = keys.filter((key) => !code.includes(`"${key}"`) && !families.some((prefix) => key.startsWith(`${prefix}.`)));
  assert.deepEqual(unused.filter((key) => !/^(aqi|eaqi|load|congestion)\./.test(key)), []);
});

test("Russian and Kazakh are not English: whole sentences differ", () => {
  for (const key of keys.filter((key) => /^(banner|ack|alerts|chart)\./.test(key))) {
    for (const id of ["ru", "kk"] as const) assert.notDeepEqual(TABLES[id][key], TABLES.en[key], `${id} ${key}`);
  }
});

test("Russian counts as Russians do", () => {
  const words = [1, 2, 5, 11, 12, 14, 21, 22, 25, 101, 111].map((count) => translate("ru", "tile.zones", { count }));
  assert.deepEqual(words, [
    "1 зона",
    "2 зоны",
    "5 зон",
    "11 зон",
    "12 зон",
    "14 зон",
    "21 зона",
    "22 зоны",
    "25 зон",
    "101 зона",
    "111 зон",
  ]);
});

test("English has two forms, Kazakh one", () => {
  assert.deepEqual([0, 1, 2].map((n) => plural("en", n)), [1, 0, 1]);
  assert.deepEqual([0, 1, 2, 5].map((n) => plural("kk", n)), [0, 0, 0, 0]);
  assert.equal(translate("kk", "tile.zones", { count: 12 }), "12 аймақ");
});

test("a number written for people still chooses the right plural form", () => {
  assert.equal(translate("ru", "tile.zones", { count: "1\u00a0001" }, 1001), "1\u00a0001 зона");
});

test("what the server names is translated, or shown as the server says it", () => {
  lang.value = "ru";
  assert.equal(tr("rule", "pm2_5_high", "PM2.5 is high"), "Высокий уровень PM2.5");
  assert.equal(tr("rule", "noise_at_night", "Noise at night"), "Noise at night");
  assert.equal(tr("unit", "furlong"), "furlong");
  assert.equal(t("ago.s", { count: 5 }), "5 с назад");
  lang.value = "en";
});

test("a zone is named in the page's language, else in the next best", () => {
  lang.value = "kk";
  assert.equal(nameOf({ en: "Apple Orchard", ru: "Алмабак", kk: "Алмабақ" }, "district-1"), "Алмабақ");
  assert.equal(nameOf({ ru: "Алмабак" }, "district-1"), "Алмабак");
  assert.equal(nameOf(undefined, "district-1"), "district-1");
  lang.value = "en";
});
