/** The chart of the chosen zone's indicator, or of a series of the chosen sensor. */
import { computed, effect, signal, untracked, useComputed } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { ApiError, all, get } from "../api";
import { type Row, addReading, mergeValues, rowsOfOverview, rowsOfValues } from "../chart/data";
import type { Drawing, Plot } from "../chart/plot";
import { DOMAINS, type LiveReading, type Overview, type Series, type Value } from "../contract";
import { percent, range as rangeText } from "../format";
import { lang, t, tr } from "../i18n";
import { arrivedReadings, arrivedValues, synced } from "../load";
import { measure, unitText } from "../measure";
import * as state from "../state";
import { Pick, Provisional, Segments } from "./parts";

const RANGES = ["1", "6", "24", "48"] as const;
type Range = (typeof RANGES)[number];
const POINTS = 300;
const STEPPED_FROM_S = 3600;

const hours = signal<Range>("24");
const rows = signal<readonly Row[]>([]);
const status = signal<"waiting" | "loading" | "ready" | "failed">("waiting");
const problem = signal("");
const pointed = signal<Row | null>(null);
const series = signal<readonly Series[]>([]);
const wantedSeries = signal<number | null>(null);

/** The zone that the chart shows while none is chosen: the worst one when the indicator was chosen. */
const fallback = signal<{ of: string; zone: string; worst: boolean } | null>(null);
effect(() => {
  const of = `${state.indicator.value} ${state.windowName.value}`;
  const held = fallback.peek();
  if (held?.of === of && held.worst) return;
  const tile = state.tilesOf(state.domain.value).find((item) => item.indicator === state.indicator.value);
  const zone = tile?.worst?.zone ?? state.shown.value.keys().next().value;
  if (zone) fallback.value = { of, zone, worst: tile?.worst != null };
});

type Subject =
  | { kind: "indicator"; zone: string; indicator: string; window: string }
  | { kind: "series"; device: string; series: Series };

/** What a sensor is looked at for, where nobody has said: the first of these that it reports. */
const FIRST_LOOK = ["pm2_5", "speed", "vehicle_count", "active_power", "energy", "temperature"];

function firstLook(own: readonly Series[]): Series | undefined {
  const found = FIRST_LOOK.flatMap((quantity) => own.filter((item) => item.quantity === quantity));
  return found[0] ?? own[0];
}

export const chosenSeries = computed<number | null>(() => {
  const device = state.selection.value;
  if (device?.kind !== "device") return null;
  const own = series.value.filter((item) => item.device === device.id);
  return (own.find((item) => item.id === wantedSeries.value) ?? firstLook(own))?.id ?? null;
});

export function chooseSeries(id: number): void {
  wantedSeries.value = id;
}

const subject = computed<Subject | null>(() => {
  const chosen = state.selection.value;
  if (chosen?.kind === "device") {
    const found = series.value.find((item) => item.id === chosenSeries.value);
    return found ? { kind: "series", device: chosen.id, series: found } : null;
  }
  const [indicator, window] = [state.indicator.value, state.windowName.value];
  const zone = chosen?.id ?? fallback.value?.zone;
  return indicator && window && zone ? { kind: "indicator", zone, indicator, window } : null;
});

const subjectKey = computed(() => {
  const of = subject.value;
  if (!of) return "";
  return of.kind === "series" ? `series ${of.series.id}` : `${of.indicator} ${of.window} ${of.zone}`;
});

const unit = computed(() => {
  const of = subject.value;
  if (!of) return "";
  return of.kind === "series" ? of.series.unit : (state.indicators.value.get(of.indicator)?.unit ?? "");
});
const indicatorOf = computed(() => (subject.value?.kind === "indicator" ? subject.value.indicator : ""));

effect(() => {
  const chosen = state.selection.value;
  if (chosen?.kind !== "device") return;
  void synced.value;
  all<Series>("/series", { device: chosen.id })
    .then((items) => void (series.value = items))
    .catch(() => undefined);
});

function interval(device: string): number {
  return state.devices.peek().get(device)?.interval_s || 60;
}

async function fetchRows(of: Subject, start: string, signal: AbortSignal): Promise<Row[]> {
  if (of.kind === "indicator") {
    const query = { zone: of.zone, window: of.window, start };
    return rowsOfValues(await all<Value>(`/indicators/${of.indicator}/values`, query, signal));
  }
  const overview = await get<Overview>("/overview", { series: of.series.id, start, points: POINTS }, signal);
  return rowsOfOverview(overview, 0, interval(of.device));
}

/** Days need more than the range to be seen at all. */
function span_s(): number {
  const of = subject.peek();
  const least = of?.kind === "indicator" && of.window === "1d" ? 7 * 24 : 0;
  return Math.max(Number(hours.peek()), least) * 3600;
}

function load(): () => void {
  const of = subject.peek();
  const abort = new AbortController();
  if (!of) {
    status.value = "waiting";
    return () => undefined;
  }
  status.value = "loading";
  fetchRows(of, `-${Math.round(span_s() / 3600)}h`, abort.signal)
    .then((found) => {
      rows.value = found;
      status.value = "ready";
    })
    .catch((error: unknown) => {
      if (abort.signal.aborted) return;
      problem.value = error instanceof ApiError ? error.message : t("conn.lost");
      status.value = "failed";
    });
  return () => abort.abort();
}

function takeValues(values: readonly Value[]): void {
  const of = subject.peek();
  if (of?.kind !== "indicator" || status.peek() !== "ready") return;
  const mine = values.filter((value) => value.zone === of.zone && value.indicator === of.indicator && value.window === of.window);
  if (mine.length) rows.value = mergeValues(rows.peek(), mine);
}

function takeReadings(readings: readonly LiveReading[]): void {
  const of = subject.peek();
  if (of?.kind !== "series" || status.peek() !== "ready") return;
  const key = of.series.channel ? `${of.series.quantity}.${of.series.channel}` : of.series.quantity;
  let grown: readonly Row[] = rows.peek();
  for (const reading of readings) {
    const [value, flag] = reading.device === of.device ? (reading.values[key] ?? []) : [];
    if (value == null || flag === undefined || flag > 2) continue;
    grown = addReading(grown, Date.parse(reading.time) / 1000, value, interval(of.device));
  }
  rows.value = grown;
}

function drawing(): Drawing {
  const of = subject.value;
  const to = state.now.peek() / 1000;
  const name = indicatorOf.value;
  const rules = [...state.rules.value.values()].filter((rule) => of?.kind === "indicator" && rule.indicator === name && rule.window === of.window);
  const first = untracked(() => rows.value.find((row) => row.value && state.provisional(row.value)));
  const known = state.indicators.value.get(name);
  const width = rows.value[0] ? rows.value[0].stop - rows.value[0].start : 0;
  return {
    rows: rows.value,
    from: to - span_s(),
    to,
    limits: rules.map((rule) => ({
      value: rule.threshold,
      text: `${t("chart.limit")} ${measure(rule.threshold, unit.value, name)}`,
    })),
    least: known?.min_coverage ?? 0.75,
    provisionalFrom: first?.start ?? null,
    stepped: of?.kind === "indicator" && width >= STEPPED_FROM_S,
    lang: lang.value,
    zone: state.zoneOfTime.value,
  };
}

function title(): string {
  const of = subject.value;
  if (!of) return "";
  if (of.kind === "indicator") return state.indicatorTitle(of.indicator);
  return tr("quantity", of.series.quantity) + (of.series.channel ? ` · ${of.series.channel}` : "");
}

function place(): string {
  const of = subject.value;
  if (!of) return "";
  return of.kind === "indicator" ? state.zoneName(of.zone) : state.deviceName(of.device);
}

function usePlot() {
  const node = useRef<HTMLDivElement>(null);
  useEffect(() => {
    let plot: Plot | null = null;
    let closed = false;
    let look = "";
    const stops: (() => void)[] = [];
    void import("../chart/plot").then(({ Plot }) => {
      if (closed || !node.current) return;
      const made = new Plot(node.current, drawing(), (row) => void (pointed.value = row));
      plot = made;
      stops.push(
        effect(() => {
          void Math.floor(state.coarse.value / 30_000); // the axis moves on
          const next = drawing();
          const style = `${state.theme.value} ${lang.value} ${subjectKey.value} ${next.stepped}`;
          made.draw(next, style !== look);
          look = style;
        }),
      );
    });
    return () => {
      closed = true;
      stops.forEach((stop) => stop());
      plot?.close();
    };
  }, []);
  return node;
}

function useData(): void {
  useEffect(() => {
    const stops = [
      effect(() => {
        void [subjectKey.value, hours.value, synced.value];
        pointed.value = null;
        return load();
      }),
      effect(() => takeValues(arrivedValues.value)),
      effect(() => takeReadings(arrivedReadings.value)),
    ];
    return () => stops.forEach((stop) => stop());
  }, []);
}

function lastRow(): Row | null {
  return rows.value.findLast((row) => row.mean !== null) ?? null;
}

function Readout() {
  const row = pointed.value ?? lastRow();
  if (!row) return <div class="readout" />;
  const name = indicatorOf.value;
  const [start, stop] = [row.start * 1000, row.stop * 1000];
  const banded = row.min !== null && row.max !== null && row.min !== row.max;
  return (
    <div class="readout" data-testid="readout" data-value={row.mean ?? ""}>
      <strong>{measure(row.mean, unit.value, name)}</strong>
      {banded && (
        <span>
          {measure(row.min, unit.value, name)} – {measure(row.max, unit.value, name)}
        </span>
      )}
      <span>{rangeText(lang.value, start, stop, state.coarse.value, state.zoneOfTime.value)}</span>
      {row.coverage !== null && (
        <span>
          {t("chart.coverage")} {percent(lang.value, row.coverage)}
        </span>
      )}
      {row.value && <Provisional is={state.provisional(row.value)} />}
    </div>
  );
}

function subjectGroups() {
  const kinds = ["road", "district", "feeder", "site"];
  const named = (id: string, text: string) => ({ id, text });
  const groups = kinds.map((kind) => ({
    label: tr("kinds", kind),
    options: [...state.zones.value.values()]
      .filter((zone) => zone.kind === kind)
      .map((zone) => named(`zone ${zone.id}`, state.zoneName(zone.id)))
      .sort((a, b) => a.text.localeCompare(b.text, "ru")),
  }));
  const sensors = DOMAINS.concat("weather" as never).map((domain) => ({
    label: `${t("kinds.device")}: ${tr("domain", domain)}`,
    options: [...state.devices.value.values()]
      .filter((device) => device.domain === domain)
      .map((device) => named(`device ${device.id}`, state.deviceName(device.id))),
  }));
  return [...groups, ...sensors].filter((group) => group.options.length);
}

function chooseSubject(picked: string): void {
  const [kind = "", id = ""] = picked.split(/ (.*)/s);
  if (kind === "device") {
    state.selection.value = { kind: "device", id };
    return;
  }
  const zone = state.zones.value.get(id);
  if (zone && zone.kind !== state.zoneKind.value) {
    const other = [...state.indicators.value.values()].find((item) => item.zone_kind === zone.kind);
    if (other) state.chooseIndicator(other.name);
  }
  state.selection.value = { kind: "zone", id };
}

function Pickers() {
  const of = subject.value;
  const chosen = state.selection.value;
  const picked = chosen ? `${chosen.kind} ${chosen.id}` : of?.kind === "indicator" ? `zone ${of.zone}` : "";
  const groups = useComputed(subjectGroups);
  const isDevice = chosen?.kind === "device";
  const kind = of?.kind === "indicator" ? (state.zones.value.get(of.zone)?.kind ?? state.zoneKind.value) : "";
  const things = isDevice
    ? series.value
        .filter((item) => item.device === chosen.id)
        .map((item) => ({ id: String(item.id), text: tr("quantity", item.quantity) + (item.channel ? ` · ${item.channel}` : "") }))
    : [...state.indicators.value.values()]
        .filter((item) => item.zone_kind === kind)
        .map((item) => ({ id: item.name, text: state.indicatorTitle(item.name) }));
  const thing = isDevice ? String(chosenSeries.value ?? "") : indicatorOf.value;
  return (
    <>
      <Pick label={t("chart.subject")} testid="chart-subject" value={picked} groups={groups.value} onPick={chooseSubject} class="strong" />
      <Pick
        label={t("chart.quantity")}
        testid="chart-quantity"
        value={thing}
        groups={[{ options: things }]}
        onPick={(id) => (isDevice ? chooseSeries(Number(id)) : state.chooseIndicator(id))}
      />
    </>
  );
}

function description(): string {
  const numbers = rows.value.flatMap((row) => (row.mean === null ? [] : [row.mean]));
  const name = indicatorOf.value;
  if (!numbers.length) return t("chart.empty");
  return t("chart.description", {
    title: title(),
    zone: place(),
    value: measure(numbers.at(-1) ?? null, unit.value, name),
    min: measure(Math.min(...numbers), unit.value, name),
    max: measure(Math.max(...numbers), unit.value, name),
  });
}

function note(): string {
  if (status.value === "waiting") return t("chart.waiting");
  if (status.value === "failed") return t("chart.failed", { reason: problem.value });
  if (status.value === "loading" && !rows.value.length) return t("chart.loading");
  return status.value === "ready" && lastRow() === null ? t("chart.empty") : "";
}

export function Chart() {
  useData();
  const node = usePlot();
  const text = note();
  return (
    <section class="dock panel" aria-labelledby="chart-title" data-testid="chart" data-subject={subjectKey.value} data-status={status.value} data-rows={rows.value.length}>
      <h2 id="chart-title" class="visually-hidden">
        {t("chart.title")}
      </h2>
      <div class="dock-head">
        <Pickers />
        <span class="grow" />
        <Segments
          label={t("chart.range")}
          testid="range"
          class="small"
          value={hours.value}
          onChoose={(id) => void (hours.value = id)}
          options={RANGES.map((id) => ({ id, text: t("chart.hours", { count: id }) }))}
        />
      </div>
      <div class="plot-head">
        <span class="plot-unit">{unitText(indicatorOf.value, unit.value)}</span>
        <Readout />
      </div>
      <div class={`plot ${status.value}`}>
        <div ref={node} class="plot-canvas" role="img" aria-label={description()} />
        {text && <div class="plot-note">{text}</div>}
      </div>
    </section>
  );
}
