/** What the page knows (from the server) and what the person chose, as signals; and what follows from both. */
import { computed, effect, signal } from "@preact/signals";
import type { Alert, Device, Domain, Indicator, Rule, Summary, Tick, Tile, Value, Zone } from "./contract";
import { DOMAINS } from "./contract";
import { type Lang, lang, nameOf, t, tr } from "./i18n";
import type { Connection } from "./live";
import { type Scale, type Theme, scaleOf } from "./scales";

// ---- what the server said

export const summary = signal<Summary | null>(null);
export const zones = signal<ReadonlyMap<string, Zone>>(new Map());
export const indicators = signal<ReadonlyMap<string, Indicator>>(new Map());
export const devices = signal<ReadonlyMap<string, Device>>(new Map());
export const rules = signal<ReadonlyMap<string, Rule>>(new Map());
export const alerts = signal<ReadonlyMap<string, Alert>>(new Map());
/** The newest value of each zone, by "indicator window" and zone. */
export const latest = signal<ReadonlyMap<string, ReadonlyMap<string, Value>>>(new Map());
/** Devices whose last readings are suspect or wrong, with their worst flag. */
export const flagged = signal<ReadonlyMap<string, number>>(new Map());
export const tick = signal<Tick | null>(null);
/** When the last reading arrived [ms, server's clock]. */
export const lastData = signal<number | null>(null);

// ---- the connection and the clock

export const connection = signal<Connection>("connecting");
export const retryAt = signal<number | null>(null);
export const lastHeard = signal<number | null>(null);
export const restoredAt = signal<number | null>(null);
export const offset = signal(0); // server's clock minus ours [ms]
export const beat = signal(Date.now());
/** The server's time [ms], moving once a second. */
export const now = computed(() => beat.value + offset.value);
/** The same in steps of ten seconds, for what need not be drawn anew each second. */
export const coarse = computed(() => Math.floor(now.value / 10_000) * 10_000);
export const zoneOfTime = computed(() => summary.value?.city?.time_zone ?? "Asia/Almaty");
export const cityName = computed(() => {
  const names = summary.value?.city?.names;
  return names ? nameOf(names, t("app.city")) : t("app.city");
});

// ---- what the person chose

export type Selection = { kind: "zone" | "device"; id: string };
export type ThemeChoice = "system" | Theme;
export type IntakeView = "ledger" | "rejected" | "health";
/** What is shown of the intake, and of which device; empty: of all. */
export type Intake = { view: IntakeView; device: string };
export type AlertFilter = "firing" | "unacknowledged" | "all";

export function stored(key: string): string | null {
  try {
    return localStorage.getItem(`qala.${key}`);
  } catch {
    return null;
  }
}

export function store(key: string, value: string): void {
  try {
    localStorage.setItem(`qala.${key}`, value);
  } catch {
    // Storage may be forbidden: the choice then lasts as long as the page.
  }
}

const asked = new URLSearchParams(location.search);
const one = <T extends string>(text: string | null, of: readonly T[], otherwise: T): T =>
  of.find((item) => item === text) ?? otherwise;

function firstSelection(): Selection | null {
  const zone = asked.get("zone");
  const device = asked.get("device");
  if (zone) return { kind: "zone", id: zone };
  return device ? { kind: "device", id: device } : null;
}

function firstIntake(): Intake | null {
  const view = asked.get("intake");
  return view ? { view: one(view, ["ledger", "rejected", "health"], "ledger"), device: asked.get("of") ?? "" } : null;
}

lang.value = one<Lang>(asked.get("lang") ?? stored("lang"), ["en", "ru", "kk"], "en");
export const themeChoice = signal<ThemeChoice>(one(stored("theme"), ["system", "dark", "light"], "system"));
export const domain = signal<Domain>(one(asked.get("domain"), DOMAINS, "traffic"));
const chosenIndicator = signal<Partial<Record<Domain, string>>>(
  asked.get("indicator") ? { [domain.peek()]: asked.get("indicator") ?? "" } : {},
);
const chosenWindow = signal<string | null>(asked.get("window"));
export const selection = signal<Selection | null>(firstSelection());
export const intake = signal<Intake | null>(firstIntake());
export const view = signal<"map" | "table">(one(asked.get("view"), ["map", "table"], "map"));
export const showSensors = signal(true);
export const alertFilter = signal<AlertFilter>("firing");
export const acknowledging = signal<Alert | null>(null);
/** Zones that the map has really drawn. */
export const rendered = signal<ReadonlySet<string>>(new Set());

const systemDark = matchMedia("(prefers-color-scheme: dark)");
const system = signal<Theme>(systemDark.matches ? "dark" : "light");
systemDark.addEventListener("change", () => {
  system.value = systemDark.matches ? "dark" : "light";
});
export const theme = computed<Theme>(() => (themeChoice.value === "system" ? system.value : themeChoice.value));

// ---- what follows

const HEADLINES: Record<Domain, readonly string[]> = {
  traffic: ["congestion_level", "travel_time_index", "space_mean_speed"],
  air: ["nowcast_aqi", "pm2_5_mean", "aqi"],
  energy: ["feeder_load", "interval_energy", "peak_demand"],
};

export function tilesOf(of: Domain): Tile[] {
  return summary.value?.domains.find((item) => item.domain === of)?.tiles ?? [];
}

/** Give the tile that stands for a domain: the best known one that has a number. */
export function headlineOf(of: Domain): Tile | null {
  const tiles = tilesOf(of);
  const ranked = HEADLINES[of].flatMap((name) => tiles.filter((tile) => tile.indicator === name));
  return ranked.find((tile) => tile.value !== null) ?? ranked[0] ?? tiles[0] ?? null;
}

export const indicator = computed<string | null>(
  () => chosenIndicator.value[domain.value] ?? headlineOf(domain.value)?.indicator ?? null,
);

export const windowName = computed<string | null>(() => {
  const name = indicator.value;
  if (!name) return null;
  const offered = indicators.value.get(name)?.windows;
  const wanted = chosenWindow.value;
  if (wanted && (!offered || offered.includes(wanted))) return wanted;
  return tilesOf(domain.value).find((tile) => tile.indicator === name)?.window ?? offered?.[0] ?? null;
});

export const latestKey = (name: string, window: string): string => `${name} ${window}`;

/** The values on the map: the newest of each zone, of the chosen indicator and window. */
export const shown = computed<ReadonlyMap<string, Value>>(() => {
  const name = indicator.value;
  const window = windowName.value;
  return (name && window && latest.value.get(latestKey(name, window))) || new Map<string, Value>();
});

/** The start of the newest window on the map [ms]; zones that stand behind it by two windows are stale. */
const newest = computed(() => Math.max(0, ...[...shown.value.values()].map((value) => Date.parse(value.start))));

export function outdated(value: Value): boolean {
  const width = Date.parse(value.stop) - Date.parse(value.start);
  return newest.value - Date.parse(value.start) >= 2 * width;
}

export const zoneKind = computed<string>(() => {
  const name = indicator.value;
  const kind = name ? indicators.value.get(name)?.zone_kind : undefined;
  return kind ?? { traffic: "road", air: "district", energy: "feeder" }[domain.value];
});

export const scale = computed<Scale>(() => {
  const values = [...shown.value.values()].flatMap((value) => (value.value === null ? [] : [value.value]));
  return scaleOf(indicator.value ?? "", values, theme.value);
});

export function provisional(value: Value): boolean {
  const grace = indicators.value.get(value.indicator)?.grace_s;
  return grace === undefined ? value.provisional : coarse.value < Date.parse(value.stop) + grace * 1000;
}

export function zoneName(id: string): string {
  return zones.value.size ? nameOf(zones.value.get(id)?.names, id) : "…"; // not its id for the moment of loading
}

export function deviceName(id: string): string {
  return devices.value.get(id)?.name || id.split("/").pop() || id;
}

export function indicatorTitle(name: string, fallback?: string): string {
  return tr("indicator", name, fallback ?? indicators.value.get(name)?.title ?? name);
}

const RANK: Record<string, number> = { critical: 0, warning: 1, info: 2 };

/** The alerts of the filter: firing first, then by severity, then the newest. */
export const listed = computed<Alert[]>(() => {
  const keep = (alert: Alert): boolean => {
    if (alertFilter.value === "all") return true;
    return alert.state === "firing" && (alertFilter.value === "firing" || !alert.acknowledged);
  };
  const order = (a: Alert, b: Alert): number =>
    Number(a.state !== "firing") - Number(b.state !== "firing") ||
    Number(!!a.acknowledged) - Number(!!b.acknowledged) ||
    (RANK[a.severity] ?? 9) - (RANK[b.severity] ?? 9) ||
    Date.parse(b.start) - Date.parse(a.start);
  return [...alerts.value.values()].filter(keep).sort(order);
});

export const firing = computed(() => [...alerts.value.values()].filter((alert) => alert.state === "firing"));
export const open = computed(() => firing.value.filter((alert) => !alert.acknowledged));

/** Silence [ms] after which the data count as stale: twice the shortest interval of the devices, two minutes at least. */
export const staleAfter = computed(() => {
  const intervals = [...devices.value.values()].map((device) => device.interval_s).filter((s) => s > 0);
  return Math.max(120, 2 * Math.min(3600, ...intervals)) * 1000;
});
export const dataAge = computed(() => (lastData.value === null ? null : Math.max(0, now.value - lastData.value)));
export const stale = computed(() => dataAge.value !== null && dataAge.value > staleAfter.value);

const BEHIND_S = 10;
export const behind = computed(() => (tick.value?.lag_s ?? 0) > BEHIND_S);

// ---- choices

export function chooseDomain(next: Domain): void {
  if (next === domain.value) return;
  chosenWindow.value = null;
  selection.value = null;
  domain.value = next;
}

export function chooseIndicator(name: string, window: string | null = null): void {
  const of = one(indicators.value.get(name)?.domain ?? null, DOMAINS, domain.value);
  if (of !== domain.value) chooseDomain(of);
  chosenWindow.value = window;
  chosenIndicator.value = { ...chosenIndicator.value, [of]: name };
}

export function showIntake(view: IntakeView, device = ""): void {
  intake.value = { view, device };
}

export function showDevice(id: string): void {
  intake.value = null;
  selection.value = { kind: "device", id };
}

export function chooseWindow(window: string): void {
  chosenWindow.value = window;
}

/** Keep the address in step with the choices, so that a view can be sent to a colleague. */
effect(() => {
  const query = new URLSearchParams({ domain: domain.value });
  const chosen = chosenIndicator.value[domain.value];
  if (chosen) query.set("indicator", chosen);
  if (chosenWindow.value) query.set("window", chosenWindow.value);
  if (selection.value) query.set(selection.value.kind, selection.value.id);
  if (view.value === "table") query.set("view", "table");
  if (intake.value) query.set("intake", intake.value.view);
  if (intake.value?.device) query.set("of", intake.value.device);
  history.replaceState(null, "", `?${query.toString().replaceAll("%2F", "/")}`);
});

effect(() => {
  document.documentElement.lang = lang.value;
  document.title = `${open.value.length ? `(${open.value.length}) ` : ""}Qala · ${t("app.title")}`;
});

effect(() => {
  document.documentElement.dataset.theme = theme.value;
});

effect(() => {
  document.documentElement.dataset.connection = connection.value;
});
