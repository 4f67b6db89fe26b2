/** Messages by key and language, with parameters and plurals. */
import { signal } from "@preact/signals";
import { en, type Key, type Messages } from "./en";
import { kk } from "./kk";
import { ru } from "./ru";

export type { Key } from "./en";
export type Lang = "en" | "ru" | "kk";
export const LANGS: readonly { id: Lang; name: string; short: string }[] = [
  { id: "en", name: "English", short: "EN" },
  { id: "ru", name: "Русский", short: "РУ" },
  { id: "kk", name: "Қазақша", short: "ҚЗ" },
];

export const TABLES: Record<Lang, Messages> = { en, ru, kk };
export const lang = signal<Lang>("en");
export type Params = Record<string, string | number>;

/** Say which form of a plural message a whole number takes: its index in the list. */
export function plural(language: Lang, n: number): number {
  if (language === "kk") return 0;
  if (language === "en") return n === 1 ? 0 : 1;
  const ten = n % 10;
  const hundred = n % 100;
  if (ten === 1 && hundred !== 11) return 0;
  return ten >= 2 && ten <= 4 && (hundred < 12 || hundred > 14) ? 1 : 2;
}

function fill(text: string, params: Params): string {
  return text.replace(/\{(\w+)\}/g, (whole, name: string) => String(params[name] ?? whole));
}

function pick(message: string | readonly string[], language: Lang, n: number): string {
  return typeof message === "string" ? message : (message[plural(language, n)] ?? message[0] ?? "");
}

/** Translate. `count` chooses the plural form; the text shown for it may be another parameter of that name. */
export function translate(language: Lang, key: Key, params: Params = {}, count = Number(params.count ?? 0)): string {
  return fill(pick(TABLES[language][key], language, count), params);
}

export function t(key: Key, params: Params = {}, count?: number): string {
  return translate(lang.value, key, params, count ?? Number(params.count ?? 0));
}

function known(key: string): key is Key {
  return Object.hasOwn(en, key);
}

/** Translate what the server names (an indicator, a rule, a unit), or show the server's own text. */
export function tr(prefix: string, id: string, fallback?: string | null, params?: Params): string {
  const key = `${prefix}.${id}`;
  return known(key) ? t(key, params) : fallback || id;
}

/** Give a thing's name in the page's language, or in the next best one. */
export function nameOf(names: Partial<Record<Lang, string>> | null | undefined, id: string): string {
  return names?.[lang.value] || names?.en || names?.ru || names?.kk || id;
}
