/** Small pieces that several panels share: a number with its unit, coverage, a sparkline, a segmented switch. */
import type { ComponentChildren } from "preact";
import { useId } from "preact/hooks";
import { digitsOf, number, percent, unitOf } from "../format";
import { lang, t } from "../i18n";
import type { Domain, Value } from "../contract";
import { measure, unitText } from "../measure";
import { provisional as isProvisional } from "../state";

interface NumberProps {
  value: number | null;
  unit: string;
  indicator?: string;
  class?: string;
}

/** A number, never without its unit. */
export function Measure({ value, unit, indicator = "", class: extra = "" }: NumberProps) {
  if (value === null) return <span class={`measure none ${extra}`}>{t("value.none")}</span>;
  const known = unitOf(indicator, unit);
  const digits = known === "1" ? 2 : digitsOf(known, value);
  const text = unitText(indicator, unit);
  return (
    <span class={`measure ${extra}`} data-value={value}>
      <span class="measure-number">{number(lang.value, value, digits)}</span>
      {text && <span class="measure-unit">{text}</span>}
    </span>
  );
}

/** How much of what was promised has arrived. `least` is what the indicator needs. */
export function Coverage({ share, least = 0.75, title }: { share: number | null; least?: number; title?: string }) {
  if (share === null) return null;
  const low = share < least;
  const text = percent(lang.value, share);
  return (
    <span class={`coverage ${low ? "low" : ""}`} title={title ?? `${t("tile.coverage")} ${text}`} data-coverage={share}>
      <meter class="visually-hidden" min={0} max={1} value={share}>
        {text}
      </meter>
      <span class="coverage-bar" aria-hidden="true">
        <span style={{ width: `${Math.min(1, share) * 100}%` }} />
      </span>
      <span class="coverage-text">{text}</span>
    </span>
  );
}

export function Provisional({ is }: { is: boolean }) {
  return is ? (
    <span class="chip provisional" title={t("value.provisional.hint")}>
      {t("value.provisional")}
    </span>
  ) : null;
}

export function coverageText(value: Value): string {
  const counts = t("value.coverage.detail", {
    good: number(lang.value, value.n_good),
    expected: number(lang.value, value.n_expected),
  });
  return `${t("tile.coverage")} ${percent(lang.value, value.coverage)}: ${counts}`;
}

/** Say everything that belongs to a value in one line. */
export function valueText(value: Value): string {
  const settled = isProvisional(value) ? t("value.provisional") : t("value.final");
  return `${measure(value.value, value.unit, value.indicator)} · ${coverageText(value)} · ${settled}`;
}

/** A line of the last values, with its area; gaps stay gaps. */
export function Spark({ values, label }: { values: readonly (number | null)[]; label: string }) {
  const gradient = useId();
  const numbers = values.filter((value): value is number => value !== null);
  if (numbers.length < 2) return <svg class="spark" viewBox="0 0 100 32" aria-hidden="true" />;
  const low = Math.min(...numbers);
  const high = Math.max(...numbers);
  const x = (i: number) => (i / (values.length - 1)) * 100;
  const y = (value: number) => 28 - ((value - low) / (high - low || 1)) * 24;
  const runs: [number, number][][] = [];
  let run: [number, number][] = [];
  values.forEach((value, i) => {
    if (value === null) {
      if (run.length) runs.push(run);
      run = [];
    } else run.push([x(i), y(value)]);
  });
  if (run.length) runs.push(run);
  const line = (points: [number, number][]) => points.map(([a, b], i) => `${i ? "L" : "M"}${a.toFixed(1)} ${b.toFixed(1)}`).join("");
  const area = (points: [number, number][]) => `${line(points)}L${points.at(-1)?.[0] ?? 0} 32L${points[0]?.[0] ?? 0} 32Z`;
  return (
    <svg class="spark" viewBox="0 0 100 32" preserveAspectRatio="none" role="img" aria-label={label}>
      <defs>
        <linearGradient id={gradient} x1="0" y1="0" x2="0" y2="1">
          <stop offset="0" class="spark-top" />
          <stop offset="1" class="spark-bottom" />
        </linearGradient>
      </defs>
      {runs.map((points) => (
        <>
          <path d={area(points)} fill={`url(#${gradient})`} />
          <path class="spark-line" d={line(points)} />
        </>
      ))}
    </svg>
  );
}

interface SegmentsProps<T extends string> {
  label: string;
  value: T;
  options: readonly { id: T; text: ComponentChildren; title?: string }[];
  onChoose: (id: T) => void;
  testid: string;
  class?: string;
}

/** A choice of a few: radio buttons that look like one switch. */
export function Segments<T extends string>({ label, value, options, onChoose, testid, class: extra = "" }: SegmentsProps<T>) {
  const name = useId();
  return (
    <fieldset class={`segments ${extra}`} data-testid={testid}>
      <legend class="visually-hidden">{label}</legend>
      {options.map((option) => (
        <label key={option.id} class={option.id === value ? "on" : ""} title={option.title}>
          <input
            type="radio"
            name={name}
            value={option.id}
            checked={option.id === value}
            onChange={() => onChoose(option.id)}
            data-testid={`${testid}-${option.id}`}
          />
          <span>{option.text}</span>
        </label>
      ))}
    </fieldset>
  );
}

export interface Option {
  id: string;
  text: string;
}

interface PickProps {
  label: string;
  value: string;
  groups: readonly { label?: string; options: readonly Option[] }[];
  onPick: (id: string) => void;
  testid: string;
  class?: string;
}

/** A drop-down list of the browser's own: works by keyboard, by touch and by screen reader. */
export function Pick({ label, value, groups, onPick, testid, class: extra = "" }: PickProps) {
  const options = (items: readonly Option[]) =>
    items.map((option) => (
      <option key={option.id} value={option.id} selected={option.id === value}>
        {option.text}
      </option>
    ));
  return (
    <label class={`pick ${extra}`}>
      <span class="visually-hidden">{label}</span>
      <select value={value} title={label} data-testid={testid} onChange={(event) => onPick(event.currentTarget.value)}>
        {groups.map((group) =>
          group.label ? (
            <optgroup key={group.label} label={group.label}>
              {options(group.options)}
            </optgroup>
          ) : (
            options(group.options)
          ),
        )}
      </select>
    </label>
  );
}

export const domainTitle = (domain: Domain): string => t(`domain.${domain}`);
