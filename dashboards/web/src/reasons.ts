/** Reasons of health in words: the code's text with its parameters, as people read them. */
import type { HealthReason } from "./contract";
import { bytes, number, span } from "./format";
import { lang, type Params, t, tr } from "./i18n";

const SPOKEN: Record<string, (value: unknown) => Params> = {
  lag_s: (value) => ({ lag: span(lang.value, Number(value) * 1000) }),
  late_s: (value) => ({ late: span(lang.value, Number(value) * 1000) }),
  free: (value) => ({ free: bytes(lang.value, Number(value)) }),
  messages: (value) => ({ messages: number(lang.value, Number(value)) }),
  error: (value) => ({ error: String(value) }),
};
const UNKNOWN: Params = { lag: "–", late: "–", free: "–", messages: "–", error: "–" };

export function reasonText({ code, params = {} }: HealthReason): string {
  const known = Object.entries(params).map(([name, value]) => (value === null ? {} : SPOKEN[name]?.(value)));
  return tr("reason", code, code, Object.assign({}, UNKNOWN, ...known));
}

/** Say what a person can do about it; a code that the page does not know has the server's own words. */
export function hintText({ code, hint = "" }: HealthReason): string {
  return tr("hint", code, hint || t("value.none"));
}
