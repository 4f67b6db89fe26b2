/** What the server's API says (`/api/v1`). Times are ISO 8601 in UTC. */
import type { FeatureCollection, Geometry, Point } from "geojson";

export type Domain = "traffic" | "air" | "energy";
export const DOMAINS: readonly Domain[] = ["traffic", "air", "energy"];

export type Names = Partial<Record<"en" | "ru" | "kk", string>>;

export interface Tile {
  indicator: string;
  title: string;
  unit: string;
  window: string;
  /** How the zones became one number. */
  combine: "mean" | "max" | "sum";
  start: string | null;
  stop: string | null;
  value: number | null;
  coverage: number | null;
  provisional: boolean;
  status: string;
  zones: number;
  worst: { zone: string; value: number } | null;
  spark: (number | null)[];
}

export type DeviceState = "live" | "late" | "silent" | "never";

export interface DomainSummary {
  domain: string;
  tiles: Tile[];
  devices: Record<DeviceState, number>;
}

export interface Summary {
  now: string;
  city?: { names?: Names; time_zone?: string };
  domains: DomainSummary[];
  alerts: { firing: number; unacknowledged: number };
}

export interface Zone {
  id: string;
  kind: string;
  names: Names;
  parent: string | null;
  free_flow_kmh: number | null;
  length_m: number | null;
  rated_kw: number | null;
}

export interface Device {
  id: string;
  fleet: string;
  kind: string;
  domain: string;
  name: string;
  lat: number | null;
  lon: number | null;
  zones: string[];
  interval_s: number;
  state: DeviceState;
  last_time: string | null;
  last_received: string | null;
}

export interface Latest {
  series: number;
  quantity: string;
  channel: string;
  time: string;
  value: number | null;
  unit: string;
  flag: number;
}

export interface DeviceDetail extends Device {
  status?: Record<string, unknown> | null;
  latest: Latest[];
}

export interface Series {
  id: number;
  device: string;
  quantity: string;
  channel: string;
  span_s: number;
  unit: string;
  aggregation: string;
}

export interface Overview {
  edges: string[];
  series: {
    id: number;
    device: string;
    quantity: string;
    channel: string;
    unit: string;
    count: (number | null)[];
    good: (number | null)[];
    mean: (number | null)[];
    min: (number | null)[];
    max: (number | null)[];
    /** What counters, states and directions have instead of a mean. */
    last: (number | null)[];
  }[];
}

export interface Indicator {
  name: string;
  title: string;
  domain: string;
  unit: string;
  method: string;
  method_version: string;
  zone_kind: string;
  windows: string[];
  quantities: string[];
  grace_s: number;
  min_coverage: number;
}

export interface Value {
  indicator: string;
  zone: string;
  window: string;
  start: string;
  stop: string;
  value: number | null;
  unit: string;
  coverage: number;
  n_good: number;
  n_expected: number;
  status: string;
  provisional: boolean;
  method: string;
  method_version: string;
  revision: number;
  known: string | null;
  detail: Record<string, unknown>;
}

export interface Acknowledgement {
  actor: string;
  comment: string;
  time: string;
}

export interface Alert {
  id: string;
  rule: string;
  title: string;
  zone: string;
  severity: string;
  owner: string;
  runbook: string;
  kind: "value" | "no_data";
  state: "firing" | "ended" | "withdrawn";
  start: string;
  end: string | null;
  indicator: string;
  window: string;
  unit: string;
  value: number | null;
  threshold: number | null;
  acknowledged: Acknowledgement | null;
}

export interface Rule {
  id: string;
  title: string;
  indicator: string;
  window: string;
  zone_kind: string;
  condition: string;
  threshold: number;
  for_s: number;
  severity: string;
  owner: string;
  runbook: string;
}

export interface Hello {
  now: string;
  version: string;
}

export interface Tick {
  now: string;
  lag_s: number | null;
  lag_messages: number | null;
  status: "ok" | "degraded" | "down";
  reasons?: HealthReason[];
}

export interface HealthReason {
  code: string;
  params?: Record<string, unknown>;
  hint?: string;
}

export interface Health {
  status: "ok" | "degraded" | "down";
  reasons: HealthReason[];
  now: string;
  version: string;
  parts: Partial<Record<string, Record<string, unknown>>>;
}

export interface Broker {
  name: string;
  address: string;
  connected: boolean;
  /** When it was connected, or when that ended; 0: never [UTC us]. */
  since_us: number;
  error: string;
  received: number;
  refused: number;
}

export interface LedgerRow {
  /** Empty for messages of no known device. */
  device: string | null;
  start: string | null;
  messages: number;
  duplicates: number;
  readings: number;
  accepted: number;
  flagged: number;
  late: number;
  recovered: number;
  rejected: Record<string, number>;
  missing: number | null;
}

export interface Rejected {
  journal: string;
  position: number;
  item: number;
  reason: string;
  detail: string;
  key: string;
  device: string;
  topic: string;
  received: string;
  payload: string;
  payload_encoding: "utf-8" | "base64";
  payload_cut: boolean;
  offset: number | null;
  readings: number;
}

export interface RejectedCount {
  reason: string;
  device: string;
  count: number;
  dropped: number;
  last: string | null;
}

export interface Replayed {
  replayed: number;
  accepted: number;
  still_rejected: number;
  pruned: number;
}

export interface Command {
  id: string;
  device: string;
  payload: Record<string, unknown>;
  state: "pending" | "sent" | "delivered" | "refused" | "expired" | "unconfirmed" | "too_large" | "cancelled";
  requested: string;
  requested_by: string;
  expires: string;
  sent: string | null;
  delivered: string | null;
  code: number | null;
  cancelled: string | null;
  cancelled_by: string | null;
}

export interface LiveReading {
  device: string;
  time: string;
  values: Record<string, [number | null, number]>;
}

export interface Items<T> {
  items: T[];
  next?: string | null;
}

export type ZoneShapes = FeatureCollection<Geometry, { id: string; kind: string; names?: Names }>;
export type DeviceShapes = FeatureCollection<
  Point,
  { id: string; name: string; kind: string; domain: string; state: DeviceState }
>;

export interface Session {
  name: string;
  scope: "read" | "operate";
  asked: boolean;
  cookie: boolean;
}

/** RFC 9457. */
export interface Problem {
  title: string;
  status: number;
  detail?: string;
  hint?: string;
  code?: string;
}
