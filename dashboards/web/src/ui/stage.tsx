/** The map with its controls and legend, and the table that says the same in words. */
import { effect, signal, useComputed, useSignal } from "@preact/signals";
import type { FeatureCollection } from "geojson";
import { useEffect, useRef } from "preact/hooks";
import { get } from "../api";
import { type Device, DOMAINS, type Value, type ZoneShapes } from "../contract";
import { digitsOf, number, unitOf } from "../format";
import { type Key, lang, t, tr } from "../i18n";
import { synced } from "../load";
import type { MarkName } from "../map/icons";
import { PALETTES } from "../map/palette";
import type { CityMap, DevicePoint, Hit, ZonePaint } from "../map/map";
import { NO_DATA, colourOf, stepOf } from "../scales";
import { measure, unitText } from "../measure";
import * as state from "../state";
import { Fit, Minus, Plus } from "./icons";
import { Measure, Pick, Segments, coverageText } from "./parts";
import { ZoneTable, rankOf, windowOf } from "./table";

const hover = signal<Hit | null>(null);
const failed = signal(false);
const ready = signal(false);

export function markOf(device: Device): MarkName {
  if (device.state === "live" && state.flagged.value.has(device.id)) return "flagged";
  return device.state;
}

const ROADS_LABELLED = 6;
const NOTABLE_STEP = 2;

/** Of many roads only the worst few carry a label, and of those only what is worth a look, or else the very worst. */
function labelledRoads(ranked: readonly Value[]): Value[] {
  const scale = state.scale.value;
  const colours = scale.worst === "low" ? [...scale.colours].reverse() : scale.colours;
  const step = (value: Value) => colours.indexOf(scale.colours[stepOf(scale, value.value ?? 0)] ?? "");
  const notable = ranked.slice(0, ROADS_LABELLED).filter((value) => scale.worst === null || step(value) >= NOTABLE_STEP);
  return notable.length ? notable : ranked.slice(0, 1);
}

/** Give the colour of the gravest open alert of each zone. */
function alarmsOf(): Map<string, string> {
  const palette = PALETTES[state.theme.value];
  const alarms = new Map<string, string>();
  for (const alert of state.open.value) {
    if (state.zones.value.get(alert.zone)?.kind !== state.zoneKind.value) continue;
    if (alert.severity === "critical") alarms.set(alert.zone, palette.silent);
    else if (alert.severity === "warning" && !alarms.has(alert.zone)) alarms.set(alert.zone, palette.late);
  }
  return alarms;
}

/** Say how each zone is drawn: by its value, and by its alert even where there is no value. */
function paintsOf(): Map<string, ZonePaint> {
  const [scale, theme] = [state.scale.value, state.theme.value];
  const values = [...state.shown.value.values()];
  const current = values.filter((value) => value.value !== null && !state.outdated(value));
  const ranked = [...current].sort((a, b) => rankOf(a.value ?? 0) - rankOf(b.value ?? 0));
  const labelled = new Set((state.zoneKind.value === "road" ? labelledRoads(ranked) : values).map((value) => value.zone));
  const alarms = alarmsOf();
  const silent = [...alarms].filter(([zone]) => !state.shown.value.has(zone));
  const paints = silent.map(([zone, alarm]): [string, ZonePaint] => [
    zone,
    { colour: NO_DATA[theme], alarm, name: state.zoneName(zone), value: t("map.nodata"), rank: 0, labelled: true },
  ]);
  return new Map([
    ...paints,
    ...values.map((value): [string, ZonePaint] => {
      const number = state.outdated(value) ? null : value.value;
      const paint: ZonePaint = {
        colour: colourOf(scale, number, theme),
        name: state.zoneName(value.zone),
        value: number === null ? t("map.nodata") : measure(number, value.unit, value.indicator),
        rank: number === null ? Infinity : rankOf(number),
        labelled: labelled.has(value.zone) || alarms.has(value.zone),
        alarm: alarms.get(value.zone) ?? null,
      };
      return [value.zone, paint];
    }),
  ]);
}

function pointsOf(): DevicePoint[] {
  if (!state.showSensors.value) return [];
  const domain = state.domain.value;
  return [...state.devices.value.values()].flatMap((device) => {
    const here = device.domain === domain || (domain === "air" && device.domain === "weather");
    if (!here || device.lon === null || device.lat === null) return [];
    return [{ id: device.id, lon: device.lon, lat: device.lat, mark: markOf(device) }];
  });
}

function choose(hit: Hit | null): void {
  state.selection.value = hit ? { kind: hit.kind, id: hit.id } : null;
}

/** Keep the map in step with the signals. Returns how to stop. */
function bind(map: CityMap): () => void {
  const stops = [
    effect(() => map.setTheme(state.theme.value)),
    effect(() => map.setKind(state.zoneKind.value)),
    effect(() => map.setValues(paintsOf())),
    effect(() => {
      void state.theme.value; // clusters are drawn in its colours
      map.setDevices(pointsOf());
    }),
    effect(() => {
      const chosen = state.selection.value;
      map.select(chosen?.kind === "zone" ? chosen.id : null);
      map.selectDevice(chosen?.kind === "device" ? chosen.id : null);
      if (chosen?.kind === "zone") map.show(map.placeOf(chosen.id));
      const device = chosen?.kind === "device" ? state.devices.peek().get(chosen.id) : undefined;
      if (device?.lon && device.lat) map.show([device.lon, device.lat]);
    }),
  ];
  return () => stops.forEach((stop) => stop());
}

async function draw(container: HTMLElement): Promise<CityMap> {
  const shapes = Promise.all([get<FeatureCollection>("/geo/basemap.geojson"), get<ZoneShapes>("/geo/zones.geojson")]);
  shapes.catch(() => undefined);
  const { CityMap } = await import("../map/map");
  const map = await CityMap.open(container, state.theme.peek(), {
    hover: (hit) => void (hover.value = hit),
    choose,
    rendered: (zones) => void (state.rendered.value = zones),
  });
  const [base, zones] = await shapes;
  map.setBase(base);
  map.setZones(zones);
  return map;
}

function useMap() {
  const container = useRef<HTMLDivElement>(null);
  const map = useSignal<CityMap | null>(null);
  useEffect(() => {
    let stop: (() => void) | null = null;
    let closed = false;
    const begin = async () => {
      if (map.peek() || !container.current) return;
      try {
        const made = await draw(container.current);
        if (closed) return made.close();
        map.value = made;
        failed.value = false;
        ready.value = true;
        stop = bind(made);
      } catch (error) {
        console.warn("qala: map:", error);
        failed.value = true;
      }
    };
    const again = effect(() => {
      if (synced.value >= 0) void begin();
    });
    return () => {
      closed = true;
      again();
      stop?.();
      map.peek()?.close();
    };
  }, []);
  return { container, map };
}

const TIP_PX = 14;

function Tip() {
  const hit = hover.value;
  if (!hit) return null;
  const style = { transform: `translate(${hit.x + TIP_PX}px, ${hit.y + TIP_PX}px)` };
  if (hit.kind === "device") {
    const device = state.devices.value.get(hit.id);
    if (!device) return null;
    return (
      <div class="tip" style={style} role="tooltip">
        <strong>{state.deviceName(device.id)}</strong>
        <span>{t(`state.${markOf(device)}` as Key)}</span>
      </div>
    );
  }
  const value = state.shown.value.get(hit.id);
  return (
    <div class="tip" style={style} role="tooltip" data-testid="map-tip">
      <strong>{state.zoneName(hit.id)}</strong>
      {value ? (
        <>
          <Measure value={value.value} unit={value.unit} indicator={value.indicator} />
          <span>{windowOf(value)}</span>
          <span>{coverageText(value)}</span>
          {state.provisional(value) && <span>{t("value.provisional")}</span>}
        </>
      ) : (
        <span>{t("map.nodata")}</span>
      )}
    </div>
  );
}

export function stepLabel(prefix: string | null, step: number): string {
  return prefix ? tr(prefix, String(step), "") : "";
}

function Legend() {
  const scale = state.scale.value;
  const name = state.indicator.value ?? "";
  const unit = state.indicators.value.get(name)?.unit ?? "";
  const known = unitOf(name, unit);
  const top = Math.max(...scale.from.map(Math.abs));
  const digits = known === "1" ? 2 : Math.max(...scale.from.map((from) => (top < 10 && known !== "band" && from % 1 ? 1 : 0)), known === "ug/m3" ? 1 : 0, known === "1" ? digitsOf("", 1.5) : 0);
  return (
    <figure class="legend" aria-label={t("map.legend")} data-testid="legend">
      <figcaption>
        {state.indicatorTitle(name)}
        {unitText(name, unit) && <span class="legend-unit">{unitText(name, unit)}</span>}
      </figcaption>
      <ol>
        {scale.from.map((from, step) => (
          <li key={from} title={stepLabel(scale.labels, step)}>
            <span class="legend-colour" style={{ background: scale.colours[step] }} />
            <span class="legend-from">{number(lang.value, from, digits)}</span>
          </li>
        ))}
        <li class="legend-none" title={t("map.nodata")}>
          <span class="legend-colour" style={{ background: NO_DATA[state.theme.value] }} />
          <span class="legend-from">{t("map.nodata")}</span>
        </li>
      </ol>
      {state.showSensors.value && <SensorLegend />}
    </figure>
  );
}

const STATES: readonly MarkName[] = ["live", "late", "silent", "flagged"];

function SensorLegend() {
  const present = useComputed(() => new Set(pointsOf().map((point) => point.mark)));
  return (
    <ul class="legend-sensors">
      {STATES.filter((mark) => mark === "live" || present.value.has(mark)).map((mark) => (
        <li key={mark} class={`state ${mark}`}>
          <span class="state-mark" aria-hidden="true" />
          {t(`state.${mark}` as Key)}
        </li>
      ))}
    </ul>
  );
}

function Toolbar() {
  const groups = DOMAINS.map((domain) => ({
    label: t(`domain.${domain}`),
    options: [...state.indicators.value.values()]
      .filter((item) => item.domain === domain)
      .map((item) => ({ id: item.name, text: state.indicatorTitle(item.name) })),
  })).filter((group) => group.options.length);
  const name = state.indicator.value ?? "";
  const windows = state.indicators.value.get(name)?.windows ?? [];
  return (
    <div class="toolbar">
      <Pick label={t("map.indicator")} testid="indicator" value={name} groups={groups} onPick={(id) => state.chooseIndicator(id)} class="strong" />
      {windows.length > 1 && (
        <Segments
          label={t("map.window")}
          testid="window"
          class="small"
          value={state.windowName.value ?? ""}
          onChoose={state.chooseWindow}
          options={windows.map((id) => ({ id, text: tr("window", id) }))}
        />
      )}
      <span class="grow" />
      <label class="toggle">
        <input
          type="checkbox"
          checked={state.showSensors.value}
          onChange={(event) => void (state.showSensors.value = event.currentTarget.checked)}
          data-testid="show-sensors"
        />
        <span>{t("map.devices")}</span>
      </label>
      <Segments
        label={t("map.view")}
        testid="view"
        class="small"
        value={state.view.value}
        onChoose={(id) => void (state.view.value = id)}
        options={[
          { id: "map", text: t("map.title") },
          { id: "table", text: t("map.table") },
        ]}
      />
    </div>
  );
}

export function Stage() {
  const { container, map } = useMap();
  const onMap = state.view.value === "map";
  return (
    <section class="stage panel" aria-label={t("map.indicator")}>
      <Toolbar />
      <div class="map-frame">
        <div
          ref={container}
          class="map"
          data-testid="map"
          data-ready={ready.value}
          data-rendered={state.rendered.value.size}
          aria-label={t("map.keyboard", { indicator: state.indicatorTitle(state.indicator.value ?? "") })}
        />
        {!ready.value && <div class="map-note">{t(failed.value ? "map.failed" : "map.loading")}</div>}
        {onMap && ready.value && (
          <>
            <Legend />
            <div class="zoom" role="group">
              <button type="button" title={t("map.zoomin")} aria-label={t("map.zoomin")} onClick={() => map.value?.zoom(1)}>
                <Plus />
              </button>
              <button type="button" title={t("map.zoomout")} aria-label={t("map.zoomout")} onClick={() => map.value?.zoom(-1)}>
                <Minus />
              </button>
              <button type="button" title={t("map.fit")} aria-label={t("map.fit")} onClick={() => map.value?.fit()}>
                <Fit />
              </button>
            </div>
            <Tip />
          </>
        )}
        <ZoneTable />
      </div>
    </section>
  );
}
