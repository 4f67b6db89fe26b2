/** What is wrong with the numbers themselves: no connection, no data, processing behind. The gravest comes first. */
import type { ComponentChildren } from "preact";
import { clock, number, span } from "../format";
import { lang, t } from "../i18n";
import { reconnect } from "../load";
import { reasonText } from "../reasons";
import * as state from "../state";
import { Check, Unplugged, Waiting } from "./icons";

const RESTORED_FOR_MS = 5000;

interface LineProps {
  kind: "lost" | "stale" | "behind" | "degraded" | "restored";
  icon: ComponentChildren;
  text: string;
  hint?: string;
  children?: ComponentChildren;
}

function Line({ kind, icon, text, hint, children }: LineProps) {
  return (
    <div class={`banner ${kind}`} role={kind === "lost" ? "alert" : "status"} data-testid="banner" data-kind={kind}>
      {icon}
      <strong>{text}</strong>
      {hint && <span class="banner-hint">{hint}</span>}
      {children}
    </div>
  );
}

function Lost() {
  const heard = state.lastHeard.value;
  const time = heard === null ? "–" : clock(heard, state.zoneOfTime.value);
  const wait = state.retryAt.value === null ? 0 : Math.ceil((state.retryAt.value - state.beat.value) / 1000);
  const hint = wait > 0 ? t("banner.lost.since", { time, seconds: wait }) : t("banner.lost.trying", { time });
  return (
    <Line kind="lost" icon={<Unplugged />} text={t("banner.lost")} hint={hint}>
      <button type="button" class="button" onClick={reconnect} data-testid="retry">
        {t("banner.retry")}
      </button>
    </Line>
  );
}

export function Banner() {
  if (state.connection.value === "lost") return <Lost />;
  const restored = state.restoredAt.value;
  if (restored !== null && state.beat.value - restored < RESTORED_FOR_MS) {
    return <Line kind="restored" icon={<Check />} text={t("banner.restored")} />;
  }
  if (state.behind.value) {
    const { lag_s, lag_messages } = state.tick.value ?? {};
    const count = lag_messages ?? 0;
    const hint = t("banner.behind.hint", { count: number(lang.value, count) }, count);
    const lag = span(lang.value, (lag_s ?? 0) * 1000);
    return <Line kind="behind" icon={<Waiting />} text={t("banner.behind", { lag })} hint={hint} />;
  }
  if (state.stale.value) {
    const age = span(lang.value, state.dataAge.value ?? 0);
    return <Line kind="stale" icon={<Waiting />} text={t("banner.stale", { age })} hint={t("banner.stale.hint")} />;
  }
  const faults = state.tick.value?.reasons ?? [];
  const slow = faults.find((fault) => fault.code === "scheduler_behind");
  if (slow && faults.length === 1) {
    const lag = span(lang.value, Number(slow.params?.lag_s ?? 0) * 1000);
    return <Line kind="behind" icon={<Waiting />} text={t("banner.computing", { lag })} />;
  }
  if (faults.length) {
    return (
      <Line kind="degraded" icon={<Waiting />} text={t("banner.degraded", { reasons: faults.map(reasonText).join(", ") })}>
        <button type="button" class="button" onClick={() => state.showIntake("health")} data-testid="banner-details">
          {t("intake.details")}
        </button>
      </Line>
    );
  }
  return null;
}
