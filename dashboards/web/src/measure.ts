/** Values with their units, as text in the page's language. */
import { digitsOf, number, unitOf } from "./format";
import { lang, t, tr } from "./i18n";

export function unitText(indicator: string, unit: string): string {
  const known = unitOf(indicator, unit);
  return known === "1" || known === "" ? "" : tr("unit", known, known);
}

/** Write a value with its unit as plain text, for tooltips and announcements. */
export function measure(value: number | null, unit: string, indicator = ""): string {
  if (value === null) return t("value.none");
  const known = unitOf(indicator, unit);
  const text = unitText(indicator, unit);
  const digits = known === "1" ? 2 : digitsOf(known, value);
  return number(lang.value, value, digits) + (text ? `\u00a0${text}` : "");
}
