/** The chosen zone or sensor: its value and everything that the value rests on. */
import { useSignal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useEffect } from "preact/hooks";
import { devicePath, get } from "../api";
import type { Device, DeviceDetail, Latest, Value, Zone } from "../contract";
import { ago, day, hourMinute, number, span } from "../format";
import { type Key, lang, t, tr } from "../i18n";
import { arrivedReadings, loadLatest, synced } from "../load";
import { colourOf, scaleOf, stepOf } from "../scales";
import { measure } from "../measure";
import * as state from "../state";
import { chooseSeries, chosenSeries } from "./chart";
import { Commands } from "./commands";
import { Close } from "./icons";
import { Coverage, Measure, Provisional, coverageText } from "./parts";
import { markOf, stepLabel } from "./stage";
import { windowOf } from "./table";

function Fact({ name, children }: { name: string; children: ComponentChildren }) {
  return (
    <>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </>
  );
}

function plain(value: unknown): string {
  if (typeof value === "number") return number(lang.value, value, Number.isInteger(value) ? 0 : 2);
  if (Array.isArray(value)) return value.map(plain).join(", ");
  if (value && typeof value === "object") {
    return Object.entries(value).map(([key, item]) => `${tr("quantity", key)} ${plain(item)}`).join(", ");
  }
  return tr("quantity", String(value));
}

function Detail({ value }: { value: Value }) {
  const entries = Object.entries(value.detail).filter(([, item]) => item !== null && item !== "");
  if (!entries.length) return null;
  return (
    <details class="more">
      <summary>{t("value.detail")}</summary>
      <dl class="facts">
        {entries.map(([key, item]) => (
          <Fact key={key} name={tr("quantity", key, key.replaceAll("_", " "))}>
            {plain(item)}
          </Fact>
        ))}
      </dl>
    </details>
  );
}

function Current({ value }: { value: Value }) {
  const scale = state.scale.value;
  const colour = colourOf(scale, value.value, state.theme.value);
  const label = value.value === null ? tr("value.status", value.status) : stepLabel(scale.labels, stepOf(scale, value.value));
  const least = state.indicators.value.get(value.indicator)?.min_coverage;
  const known = value.known ? Date.parse(value.known) : null;
  return (
    <>
      <div class="current" data-testid="panel-value" data-indicator={value.indicator} data-zone={value.zone} data-value={value.value ?? ""}>
        <span class="current-title">{state.indicatorTitle(value.indicator)}</span>
        <Measure value={value.value} unit={value.unit} indicator={value.indicator} class="big" />
        {label && (
          <span class="current-label">
            <span class="swatch" style={{ background: colour }} />
            {label}
          </span>
        )}
      </div>
      <dl class="facts">
        <Fact name={t("value.window")}>
          {windowOf(value)} <Provisional is={state.provisional(value)} />
          {!state.provisional(value) && <span class="dim"> {t("value.final")}</span>}
        </Fact>
        <Fact name={t("tile.coverage")}>
          <Coverage share={value.coverage} title={coverageText(value)} {...(least === undefined ? {} : { least })} />
          <span class="dim">
            {t("value.coverage.detail", { good: number(lang.value, value.n_good), expected: number(lang.value, value.n_expected) })}
          </span>
        </Fact>
        <Fact name={t("value.method")}>
          {value.method} <span class="dim">{value.method_version}</span>
        </Fact>
        <Fact name={t("value.revision")}>
          {value.revision}
          {known !== null && (
            <span class="dim">
              {" · "}
              {t("value.known")} {ago(lang.value, state.now.value - known)}
            </span>
          )}
        </Fact>
      </dl>
    </>
  );
}

function Others({ zone }: { zone: Zone }) {
  const others = [...state.indicators.value.values()].filter((item) => item.zone_kind === zone.kind && item.name !== state.indicator.value);
  useEffect(() => {
    for (const item of others) {
      const window = item.windows[0];
      if (window && !state.latest.peek().has(state.latestKey(item.name, window))) loadLatest(item.name, window).catch(() => undefined);
    }
  }, [zone.kind, others.length]);
  if (!others.length) return null;
  return (
    <>
      <h3>{t("panel.others")}</h3>
      <ul class="rows">
        {others.map((item) => {
          const value = state.latest.value.get(state.latestKey(item.name, item.windows[0] ?? ""))?.get(zone.id);
          const scale = scaleOf(item.name, value?.value == null ? [] : [value.value], state.theme.value);
          return (
            <li key={item.name}>
              <button type="button" onClick={() => state.chooseIndicator(item.name)} title={value ? `${windowOf(value)} · ${coverageText(value)}` : ""}>
                <span class="rows-name">{state.indicatorTitle(item.name)}</span>
                {scale.labels && value?.value != null && (
                  <span class="swatch" style={{ background: colourOf(scale, value.value, state.theme.value) }} />
                )}
                {value ? <Measure value={value.value} unit={value.unit} indicator={item.name} /> : <span class="dim">–</span>}
              </button>
            </li>
          );
        })}
      </ul>
    </>
  );
}

function Sensors({ zone }: { zone: string }) {
  const here = [...state.devices.value.values()].filter((device) => device.zones.includes(zone));
  if (!here.length) return null;
  return (
    <>
      <h3>
        {t("panel.sensors")} <span class="count">{number(lang.value, here.length)}</span>
      </h3>
      <ul class="rows">
        {here.map((device) => (
          <li key={device.id}>
            <button type="button" onClick={() => void (state.selection.value = { kind: "device", id: device.id })}>
              <span class={`state ${markOf(device)}`}>
                <span class="state-mark" aria-hidden="true" />
              </span>
              <span class="rows-name">{state.deviceName(device.id)}</span>
              <span class="dim">{t(`state.${markOf(device)}` as Key)}</span>
            </button>
          </li>
        ))}
      </ul>
    </>
  );
}

function ZoneFacts({ zone }: { zone: Zone }) {
  const facts: [Key, number | null, string][] = [
    ["panel.free_flow", zone.free_flow_kmh, "km/h"],
    ["panel.length", zone.length_m, "m"],
    ["panel.rated", zone.rated_kw, "kW"],
  ];
  const there = facts.filter(([, value]) => value !== null);
  if (!there.length) return null;
  return (
    <dl class="facts">
      {there.map(([key, value, unit]) => (
        <Fact key={key} name={t(key)}>
          {measure(value === null ? null : Math.round(value), unit)}
        </Fact>
      ))}
    </dl>
  );
}

function ZonePanel({ id }: { id: string }) {
  const zone = state.zones.value.get(id);
  const value = state.shown.value.get(id);
  return (
    <Panel kind={zone ? tr("kind", zone.kind) : ""} title={state.zoneName(id)}>
      {value ? <Current value={value} /> : <p class="dim">{t("map.nodata")}</p>}
      {zone && <ZoneFacts zone={zone} />}
      {value && <Detail value={value} />}
      {zone && <Others zone={zone} />}
      <Sensors zone={id} />
    </Panel>
  );
}

export const seriesTitle = (series: { quantity: string; channel: string }): string =>
  tr("quantity", series.quantity) + (series.channel ? ` · ${series.channel}` : "");

function when(time: string): string {
  const ms = Date.parse(time);
  const age = state.now.value - ms;
  if (age < 24 * 3600_000) return ago(lang.value, age);
  return `${day(lang.value, ms, state.zoneOfTime.value)}, ${hourMinute(ms, state.zoneOfTime.value)}`;
}

function Reading({ reading, chosen }: { reading: Latest; chosen: boolean }) {
  const bad = reading.flag === 3 || reading.flag === 4 || reading.flag === 9;
  return (
    <li class={chosen ? "chosen" : ""}>
      <button type="button" onClick={() => chooseSeries(reading.series)} aria-pressed={chosen} title={when(reading.time)}>
        <span class="rows-name">{seriesTitle(reading)}</span>
        {bad && <span class={`chip flag-${reading.flag}`}>{tr("flag", String(reading.flag))}</span>}
        <Measure value={reading.value} unit={reading.unit} />
      </button>
    </li>
  );
}

/** A device's detail, with its readings as they arrive. */
function useDetail(id: string) {
  const detail = useSignal<DeviceDetail | null>(null);
  const resync = synced.value;
  useEffect(() => {
    const abort = new AbortController();
    get<DeviceDetail>(`/devices/${devicePath(id)}`, {}, abort.signal)
      .then((found) => void (detail.value = found))
      .catch(() => undefined);
    return () => abort.abort();
  }, [id, resync]);
  const arrived = arrivedReadings.value;
  useEffect(() => {
    const last = arrived.filter((reading) => reading.device === id).at(-1);
    const held = detail.peek();
    if (!last || !held) return;
    const latest = held.latest.map((item) => {
      const fresh = last.values[item.channel ? `${item.quantity}.${item.channel}` : item.quantity];
      return fresh ? { ...item, time: last.time, value: fresh[0], flag: fresh[1] } : item;
    });
    detail.value = { ...held, last_time: last.time, last_received: new Date(state.now.peek()).toISOString(), latest };
  }, [arrived]);
  return detail.value?.id === id ? detail.value : null;
}

function DevicePanel({ id }: { id: string }) {
  const listed = state.devices.value.get(id);
  const detail = useDetail(id);
  const device: Device | null = detail ?? listed ?? null;
  const mark = listed ? markOf(listed) : null;
  return (
    <Panel kind={t("device")} title={state.deviceName(id)}>
      {device && (
        <dl class="facts">
          <Fact name={t("value.status")}>
            {mark && (
              <span class={`state ${mark}`}>
                <span class="state-mark" aria-hidden="true" /> {t(`state.${mark}` as Key)}
              </span>
            )}
          </Fact>
          <Fact name={t("panel.lastreading")}>{device.last_time ? when(device.last_time) : "–"}</Fact>
          <Fact name={t("panel.interval")}>{span(lang.value, device.interval_s * 1000)}</Fact>
          <Fact name={t("panel.zones")}>
            {device.zones.map((zone) => (
              <button key={zone} type="button" class="link" onClick={() => void (state.selection.value = { kind: "zone", id: zone })}>
                {state.zoneName(zone)}
              </button>
            ))}
          </Fact>
          <Fact name="ID">
            <code>{device.id}</code>
          </Fact>
        </dl>
      )}
      {detail && detail.latest.length > 0 && (
        <>
          <h3>{t("panel.readings")}</h3>
          <ul class="rows">
            {detail.latest.map((reading) => (
              <Reading key={reading.series} reading={reading} chosen={chosenSeries.value === reading.series} />
            ))}
          </ul>
        </>
      )}
      {device && (
        <button type="button" class="link ledger-link" onClick={() => state.showIntake("ledger", id)} data-testid="open-ledger">
          {t("ledger.open")}
        </button>
      )}
      {device && <Commands device={id} />}
    </Panel>
  );
}

function Panel({ kind, title, children }: { kind: string; title: string; children: ComponentChildren }) {
  const close = () => void (state.selection.value = null);
  return (
    <section class="details panel" aria-labelledby="details-title" data-testid="details">
      <div class="panel-head">
        <div>
          <span class="eyebrow">{kind}</span>
          <h2 id="details-title">{title}</h2>
        </div>
        <button type="button" class="button bare" onClick={close} aria-label={t("panel.close")} title={t("panel.close")} data-testid="details-close">
          <Close />
        </button>
      </div>
      <div class="panel-body">{children}</div>
    </section>
  );
}

export function Details() {
  const chosen = state.selection.value;
  if (!chosen) return null;
  return chosen.kind === "zone" ? <ZonePanel id={chosen.id} /> : <DevicePanel id={chosen.id} />;
}
