/** Gets what the page shows, and keeps it current: one summary first, the rest beside it, then the live stream. */
import { batch, effect, signal } from "@preact/signals";
import { API, all, get, post } from "./api";
import type {
  Alert,
  Device,
  Hello,
  Indicator,
  Items,
  LiveReading,
  Rule,
  Summary,
  Tick,
  Value,
  Zone,
} from "./contract";
import { t, tr } from "./i18n";
import { Live } from "./live";
import { measure } from "./measure";
import { asked, loadSession } from "./session";
import * as state from "./state";

const ALERTS_MAX = 500;
const DEVICES_EVERY_MS = 30_000;
const RESYNC_WITHIN_MS = 2000;

/** What has just arrived, for charts that draw it. */
export const arrivedValues = signal<readonly Value[]>([]);
export const arrivedReadings = signal<readonly LiveReading[]>([]);
/** Counts the resyncs: whoever holds data of its own loads it again. */
export const synced = signal(0);
/** What a screen reader is told. */
export const announcement = signal("");

const byId = <T extends { id: string }>(items: readonly T[]): Map<string, T> =>
  new Map(items.map((item) => [item.id, item]));

function hear(time: string): void {
  state.offset.value = Date.parse(time) - Date.now();
  state.lastHeard.value = Date.parse(time);
}

async function loadSummary(): Promise<void> {
  const summary = await get<Summary>("/summary");
  batch(() => {
    state.summary.value = summary;
    hear(summary.now);
  });
}

async function loadZones(): Promise<void> {
  state.zones.value = byId(await all<Zone>("/zones"));
}

async function loadIndicators(): Promise<void> {
  const items = await all<Indicator>("/indicators");
  state.indicators.value = new Map(items.map((item) => [item.name, item]));
}

async function loadRules(): Promise<void> {
  state.rules.value = byId(await all<Rule>("/rules"));
}

async function loadAlerts(): Promise<void> {
  const wanted = state.alertFilter.peek() === "all" ? "all" : "firing";
  const { items } = await get<Items<Alert>>("/alerts", { state: wanted, limit: ALERTS_MAX });
  const kept = wanted === "all" ? [] : [...state.alerts.peek().values()].filter((alert) => alert.state !== "firing");
  state.alerts.value = byId([...kept, ...items]);
}

async function loadDevices(): Promise<void> {
  const items = await all<Device>("/devices");
  const heard = Math.max(0, ...items.map((device) => Date.parse(device.last_received ?? "") || 0));
  batch(() => {
    state.devices.value = byId(items);
    if (heard > (state.lastData.peek() ?? 0)) state.lastData.value = heard;
  });
}

/** Load the newest values of an indicator's zones, and keep them among those that live events update. */
export async function loadLatest(indicator: string, window: string): Promise<void> {
  const items = await all<Value>(`/indicators/${indicator}/latest`, { window });
  const table = new Map(items.map((value) => [value.zone, value]));
  state.latest.value = new Map(state.latest.peek()).set(state.latestKey(indicator, window), table);
}

/** A failed load leaves the old data standing; the connection's banner and the next resync deal with the cause. */
function quietly(work: Promise<unknown>): void {
  work.catch((error: unknown) => {
    if (state.connection.peek() === "live") console.warn("qala:", error);
  });
}

function resync(): void {
  quietly(loadSummary());
  quietly(loadAlerts());
  quietly(loadDevices());
  resyncLatest();
}

/** Load again what is loaded by choice. */
function resyncLatest(): void {
  for (const key of state.latest.peek().keys()) {
    const [indicator = "", window = ""] = key.split(" ");
    quietly(loadLatest(indicator, window));
  }
  synced.value += 1;
}

/** The stream left something out for this page: read all again, but not at the same moment as every other page. */
function resyncSoon(): void {
  window.setTimeout(resync, Math.random() * RESYNC_WITHIN_MS);
}

let pending = 0;

function summarySoon(): void {
  if (pending) return;
  pending = window.setTimeout(() => {
    pending = 0;
    quietly(loadSummary());
  }, 1000);
}

function newer(value: Value, held: Value | undefined): boolean {
  if (!held) return true;
  const [start, old] = [Date.parse(value.start), Date.parse(held.start)];
  return start > old || (start === old && value.revision >= held.revision);
}

function takeValues({ items }: Items<Value>): void {
  const tables = new Map(state.latest.peek());
  for (const value of items) {
    const key = state.latestKey(value.indicator, value.window);
    const table = tables.get(key);
    if (table && newer(value, table.get(value.zone))) tables.set(key, new Map(table).set(value.zone, value));
  }
  batch(() => {
    state.latest.value = tables;
    arrivedValues.value = items;
  });
  summarySoon();
}

/** Give the worst flag among a device's readings, where it is suspect or wrong. */
function worstFlag(reading: LiveReading): number | null {
  const flags = Object.values(reading.values).map(([, flag]) => flag);
  return flags.includes(4) ? 4 : flags.includes(3) ? 3 : null;
}

function takeReadings({ items }: Items<LiveReading>): void {
  const flagged = new Map(state.flagged.peek());
  const devices = new Map(state.devices.peek());
  let [changed, reflagged] = [false, false];
  for (const reading of items) {
    const flag = worstFlag(reading);
    if (flag !== (flagged.get(reading.device) ?? null)) reflagged = true;
    if (flag) flagged.set(reading.device, flag);
    else flagged.delete(reading.device);
    const device = devices.get(reading.device);
    if (device && device.state !== "live") {
      devices.set(device.id, { ...device, state: "live" });
      changed = true;
    }
  }
  batch(() => {
    if (items.length) state.lastData.value = Date.now() + state.offset.peek();
    if (reflagged) state.flagged.value = flagged;
    if (changed) state.devices.value = devices;
    arrivedReadings.value = items;
  });
}

function takeAlerts({ items }: Items<Alert>): void {
  const known = state.alerts.peek();
  const fresh = items.filter((alert) => alert.state === "firing" && known.get(alert.id)?.state !== "firing");
  const merged = new Map(known);
  for (const alert of items) merged.set(alert.id, alert);
  state.alerts.value = merged;
  summarySoon();
  const first = fresh[0];
  if (!first) return;
  announcement.value = t("alerts.new", {
    title: tr("rule", first.rule, first.title),
    zone: state.zoneName(first.zone),
    value: measure(first.kind === "no_data" ? null : first.value, first.unit, first.indicator),
  });
}

const live = new Live({
  url: `${API}/live`,
  quiet_ms: 15_000,
  backoff_ms: [1000, 15_000],
  onConnection: (next, retryAt) => {
    const before = state.connection.peek();
    batch(() => {
      state.connection.value = next;
      state.retryAt.value = retryAt;
    });
    if (next === "lost") quietly(loadSession()); // a session that has ended ends the stream, which cannot say so
    if (next !== "live") return;
    if (before === "lost") {
      state.restoredAt.value = Date.now();
      announcement.value = t("banner.restored");
      resync();
      begin();
    }
  },
  events: {
    hello: (data) => hear((data as Hello).now),
    resync: resyncSoon,
    tick: (data) => {
      hear((data as Tick).now);
      state.tick.value = data as Tick;
    },
    readings: (data) => takeReadings(data as Items<LiveReading>),
    values: (data) => takeValues(data as Items<Value>),
    alerts: (data) => takeAlerts(data as Items<Alert>),
  },
});

export function reconnect(): void {
  if (asked.peek()) return;
  state.retryAt.value = null;
  live.open();
}

export async function acknowledge(alert: Alert, actor: string, comment: string): Promise<void> {
  const done = await post<Alert>(`/alerts/${encodeURIComponent(alert.id)}/acknowledge`, { actor, comment });
  state.alerts.value = new Map(state.alerts.peek()).set(done.id, done);
  announcement.value = t("ack.done", { title: tr("rule", done.rule, done.title) });
  summarySoon();
}

/** Get what does not change by itself, where it is still missing: the server may have been down when the page opened. */
function begin(): void {
  if (!state.zones.peek().size) quietly(loadZones());
  if (!state.indicators.peek().size) quietly(loadIndicators());
  if (!state.rules.peek().size) quietly(loadRules());
}

/** Load all, and follow what changes, unless the server asks who we are. */
export async function enter(): Promise<void> {
  const first = loadSummary();
  begin();
  quietly(loadAlerts());
  quietly(loadSession());
  await first.catch(() => undefined);
  if (asked.peek()) return;
  live.open();
  quietly(loadDevices());
  resyncLatest();
}

/** Start everything. Returns when the first numbers are there, or could not be got. */
export async function start(): Promise<void> {
  effect(() => {
    if (!asked.value) return;
    live.close();
    state.connection.value = "connecting";
  });
  await enter();

  effect(() => {
    const [name, window] = [state.indicator.value, state.windowName.value];
    if (name && window && !state.latest.peek().has(state.latestKey(name, window))) quietly(loadLatest(name, window));
  });
  effect(() => {
    if (state.alertFilter.value === "all") quietly(loadAlerts());
  });
  window.setInterval(() => void (state.beat.value = Date.now()), 1000);
  window.setInterval(() => {
    if (state.connection.peek() === "live") quietly(loadDevices());
  }, DEVICES_EVERY_MS);
  window.addEventListener("online", reconnect);
}
