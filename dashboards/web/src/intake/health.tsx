/** How the parts are doing: what is wrong and what to do about it, then each part's few figures. */
import type { ComponentChildren } from "preact";
import { get } from "../api";
import type { Broker, Health } from "../contract";
import { bytes, latency, moment, number, span } from "../format";
import { type Key, lang, t } from "../i18n";
import { hintText, reasonText } from "../reasons";
import * as state from "../state";
import { Check, Waiting as Clock } from "../ui/icons";
import { useLoaded } from "./loaded";
import { Waiting } from "./sheet";

const EVERY_MS = 10_000;

type Part = Record<string, unknown>;
type Fact = [name: Key, value: string | null];

const count = (value: unknown): string | null => (typeof value === "number" ? number(lang.value, value) : null);
const text = (value: unknown): string | null => (typeof value === "string" && value ? value : null);
const seconds = (value: unknown, write: (value: number) => string): string | null => (typeof value === "number" ? write(value) : null);
const lag = (value: unknown): string | null => seconds(value, (s) => span(lang.value, s * 1000));

/** Say what is worth knowing of each part; what a part does not say is left out. */
const FACTS: Record<string, (part: Part) => Fact[]> = {
  door: (part) => [
    ["health.address", [part.address, part.tls_address, ...((part.http as string[] | undefined) ?? [])].filter(Boolean).join(", ")],
    ["health.connections", count(part.connections)],
    ["health.last", count(part.last)],
    ["health.disk", part.disk_free ? seconds(part.disk_free, (size) => bytes(lang.value, size)) : null],
  ],
  probe: (part) => [
    ["health.puback", seconds(part.puback_s, (s) => latency(lang.value, s))],
    ["health.stored", seconds(part.stored_s, (s) => latency(lang.value, s))],
    ["health.late", part.late_s ? seconds(part.late_s, (s) => latency(lang.value, s)) : null],
  ],
  projector: (part) => [
    ["health.waiting", count(part.lag_messages)],
    ["health.lag", lag(part.lag_s)],
  ],
  scheduler: (part) => [
    ["health.due", count(part.due)],
    ["health.lag", lag(part.lag_s)],
  ],
  store: (part) => [["health.engine", text(part.engine)]],
};
const PARTS = ["door", "probe", "projector", "scheduler", "outbox", "store", "brokers"] as const;

function since(broker: Broker): string {
  if (!broker.since_us) return t("health.never");
  const time = moment(lang.value, broker.since_us / 1000, state.coarse.value, state.zoneOfTime.value);
  return t(broker.connected ? "health.since" : "health.lost", { time });
}

function Brokers({ brokers }: { brokers: readonly Broker[] }) {
  return (
    <ul class="brokers">
      {brokers.map((broker) => (
        <li key={broker.name} data-testid="broker" data-name={broker.name} data-connected={broker.connected}>
          <span class={`state ${broker.connected && !broker.error ? "live" : "silent"}`}>
            <span class="state-mark" aria-hidden="true" /> <strong>{broker.name}</strong>
          </span>
          <code class="dim">{broker.address}</code>
          <span>{since(broker)}</span>
          <span class="dim">
            {t("health.received")} {number(lang.value, broker.received)}
            {broker.refused > 0 && ` · ${t("health.refused")} ${number(lang.value, broker.refused)}`}
          </span>
          {broker.error && <span class="grave">{broker.error}</span>}
        </li>
      ))}
    </ul>
  );
}

function Card({ name, part }: { name: (typeof PARTS)[number]; part: Part }) {
  const up = part.up !== false;
  const error: Fact = ["health.error", name === "brokers" ? null : text(part.error)];
  const facts = [...(FACTS[name]?.(part) ?? []), error].filter(([, value]) => value);
  return (
    <section class={`part ${name}`} data-testid="part" data-part={name} data-up={up} aria-labelledby={`part-${name}`}>
      <h3 id={`part-${name}`}>
        <span class={`state ${up ? "live" : "silent"}`}>
          <span class="state-mark" aria-hidden="true" /> {t(`health.${name}`)}
        </span>
        {name !== "brokers" && <span class={up ? "dim" : "grave"}>{t(up ? "health.up" : "health.stopped")}</span>}
      </h3>
      {name === "brokers" && <Brokers brokers={(part.brokers as Broker[] | undefined) ?? []} />}
      {facts.length > 0 && (
        <dl class="facts">
          {facts.map(([key, value]) => (
            <Figure key={key} name={t(key)}>
              {value}
            </Figure>
          ))}
        </dl>
      )}
    </section>
  );
}

function Figure({ name, children }: { name: string; children: ComponentChildren }) {
  return (
    <>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </>
  );
}

export function HealthView() {
  const loaded = useLoaded((abort) => get<Health>("/health", {}, abort), [state.tick.value?.status], EVERY_MS);
  const health = loaded.data.value;
  if (!health) return <Waiting error={loaded.error.value} />;
  return (
    <div class="sheet-scroll health">
      <p class={`verdict ${health.status}`} data-testid="health" data-status={health.status}>
        {health.status === "ok" ? <Check /> : <Clock />}
        <strong>{t(`health.${health.status}`)}</strong>
        <span class="dim">
          {t("health.version")} {health.version}
        </span>
      </p>
      {health.reasons.length > 0 && (
        <ul class="faults">
          {health.reasons.map((reason) => (
            <li key={reason.code} data-testid="health-reason" data-code={reason.code}>
              <strong>{reasonText(reason)}</strong>
              <span>{hintText(reason)}</span>
            </li>
          ))}
        </ul>
      )}
      <div class="parts">
        {PARTS.map((name) => {
          const part = health.parts[name];
          return part && <Card key={name} name={name} part={part} />;
        })}
      </div>
    </div>
  );
}
