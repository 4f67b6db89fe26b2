/**
 * Numbers, dates and durations in three languages. Not by Intl: Chromium has no data for Kazakh and says it does,
 * so its numbers and dates come out in a root format.
 */
import { type Lang, translate } from "./i18n";

const NBSP = "\u00a0";
const MINUS = "\u2212";
const SEPARATORS: Record<Lang, { group: string; decimal: string }> = {
  en: { group: ",", decimal: "." },
  ru: { group: NBSP, decimal: "," },
  kk: { group: NBSP, decimal: "," },
};

export const MONTHS: Record<Lang, readonly string[]> = {
  en: ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"],
  ru: ["янв.", "февр.", "мар.", "апр.", "мая", "июн.", "июл.", "авг.", "сент.", "окт.", "нояб.", "дек."],
  kk: ["қаң.", "ақп.", "нау.", "сәу.", "мам.", "мау.", "шіл.", "там.", "қыр.", "қаз.", "қар.", "жел."],
};

export const WEEKDAYS: Record<Lang, readonly string[]> = {
  en: ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"],
  ru: ["вс", "пн", "вт", "ср", "чт", "пт", "сб"],
  kk: ["жс", "дс", "сс", "ср", "бс", "жм", "сб"],
};

function grouped(whole: string, separator: string): string {
  return whole.replace(/\B(?=(\d{3})+(?!\d))/g, separator);
}

/** Write a number with a fixed number of decimals, e.g. 1234.5 as "1,234.5" or "1 234,5". */
export function number(language: Lang, value: number, digits = 0): string {
  if (!Number.isFinite(value)) return "–";
  const text = Math.abs(value).toFixed(digits);
  const [whole = "0", part] = text.split(".");
  const { group, decimal } = SEPARATORS[language];
  const sign = value < 0 && Number(text) !== 0 ? MINUS : "";
  return sign + grouped(whole, group) + (part ? decimal + part : "");
}

const DIGITS: Record<string, number> = {
  "ug/m3": 1,
  "mg/m3": 2,
  degC: 1,
  hPa: 1,
  "m/s": 1,
  "km/h": 0,
  "veh/h": 0,
  "%": 0,
  V: 1,
  A: 1,
  Hz: 2,
  AQI: 0,
  band: 0,
};

/** Say how many decimals a value of a unit is shown with: those of the unit, or about three significant digits. */
export function digitsOf(unit: string, value: number): number {
  const fixed = DIGITS[unit];
  if (fixed !== undefined) return fixed;
  const size = Math.abs(value);
  if (Number.isInteger(value) || size >= 100) return 0;
  return size >= 10 ? 1 : 2;
}

/** Some indicators have the unit 1 and are whole numbers of a scale: people know them by the scale's name. */
export function unitOf(indicator: string, unit: string): string {
  if (indicator === "nowcast_aqi" || indicator === "aqi") return "AQI";
  if (indicator === "european_aqi") return "band";
  return unit;
}

/** Write a coverage, 0 to 1, as whole percent: never 100 % where readings are missing, never 0 % where some are there. */
export function percent(language: Lang, share: number): string {
  const rounded = Math.round(share * 100);
  const honest = share < 1 && rounded === 100 ? 99 : share > 0 && rounded === 0 ? 1 : rounded;
  return `${number(language, honest)}${language === "en" ? "" : NBSP}%`;
}

export interface CityTime {
  year: number;
  month: number; // 1 to 12
  day: number;
  weekday: number; // 0 is Sunday
  hour: number;
  minute: number;
  second: number;
}

const formatters = new Map<string, Intl.DateTimeFormat>();

function formatter(zone: string): Intl.DateTimeFormat {
  let made = formatters.get(zone);
  if (!made) {
    made = new Intl.DateTimeFormat("en-GB", {
      timeZone: zone,
      hourCycle: "h23",
      year: "numeric",
      month: "2-digit",
      day: "2-digit",
      hour: "2-digit",
      minute: "2-digit",
      second: "2-digit",
    });
    formatters.set(zone, made);
  }
  return made;
}

/** Break an instant [ms] into the parts that a clock in a time zone shows. */
export function cityTime(ms: number, zone: string): CityTime {
  const parts: Record<string, number> = {};
  for (const part of formatter(zone).formatToParts(ms)) parts[part.type] = Number(part.value);
  const { year = 1970, month = 1, day = 1, hour = 0, minute = 0, second = 0 } = parts;
  const weekday = new Date(Date.UTC(year, month - 1, day)).getUTCDay();
  return { year, month, day, weekday, hour, minute, second };
}

const two = (n: number): string => String(n).padStart(2, "0");

export function clock(ms: number, zone: string): string {
  const at = cityTime(ms, zone);
  return `${two(at.hour)}:${two(at.minute)}:${two(at.second)}`;
}

export function hourMinute(ms: number, zone: string): string {
  const at = cityTime(ms, zone);
  return `${two(at.hour)}:${two(at.minute)}`;
}

/** Write a day as "22 Nov", with the weekday as "Sun, 22 Nov". */
export function day(language: Lang, ms: number, zone: string, weekday = false): string {
  const at = cityTime(ms, zone);
  const date = `${at.day} ${MONTHS[language][at.month - 1]}`;
  return weekday ? `${WEEKDAYS[language][at.weekday]}, ${date}` : date;
}

function sameDay(a: CityTime, b: CityTime): boolean {
  return a.day === b.day && a.month === b.month && a.year === b.year;
}

/** Write a time of day, and the date too where it is not that of `now`. */
export function moment(language: Lang, ms: number, now: number, zone: string): string {
  const time = hourMinute(ms, zone);
  return sameDay(cityTime(ms, zone), cityTime(now, zone)) ? time : `${day(language, ms, zone)}, ${time}`;
}

/** Write a window `[start, stop)`: "17:10–17:15", or its date where it is a whole day. */
export function range(language: Lang, start: number, stop: number, now: number, zone: string): string {
  if (stop - start >= 20 * 3600_000) return day(language, start, zone);
  return `${moment(language, start, now, zone)}–${hourMinute(stop, zone)}`;
}

function scaled(ms: number): ["s" | "min" | "h" | "d", number] {
  const s = Math.max(0, Math.round(ms / 1000));
  if (s < 100) return ["s", s];
  if (s < 90 * 60) return ["min", Math.round(s / 60)];
  return s < 36 * 3600 ? ["h", Math.round(s / 3600)] : ["d", Math.round(s / 86400)];
}

/** Write how long ago something was: "12 s ago". */
export function ago(language: Lang, ms: number): string {
  const [unit, count] = scaled(ms);
  if (unit === "s" && count < 2) return translate(language, "ago.now");
  return translate(language, `ago.${unit}`, { count });
}

/** Write a duration: "12 s". */
export function span(language: Lang, ms: number): string {
  const [unit, count] = scaled(ms);
  return translate(language, `span.${unit}`, { count });
}

/** Write a short time of seconds to the millisecond: "4.2 ms", "12 s". */
export function latency(language: Lang, seconds: number): string {
  const ms = seconds * 1000;
  if (ms >= 1000) return span(language, ms);
  return translate(language, "span.ms", { count: number(language, ms, ms < 10 ? 1 : 0) });
}

/** Write a size in decimal units, as disks are sold: "12 GB". */
export function bytes(language: Lang, size: number): string {
  const step = Math.min(4, Math.max(0, Math.floor(Math.log10(Math.max(size, 1)) / 3)));
  const scaledSize = size / 1000 ** step;
  const count = number(language, scaledSize, step && scaledSize < 10 ? 1 : 0);
  return translate(language, `size.${step as 0 | 1 | 2 | 3 | 4}`, { count });
}
