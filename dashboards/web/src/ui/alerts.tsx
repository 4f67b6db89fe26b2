/** The list of alerts, and the dialog that acknowledges one. */
import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { reasonOf } from "../api";
import type { Alert } from "../contract";
import { ago, moment, number, span } from "../format";
import { lang, t, tr } from "../i18n";
import { acknowledge } from "../load";
import { measure } from "../measure";
import { mayOperate } from "../session";
import * as state from "../state";
import { Book, Check, Quiet, SeverityMark } from "./icons";
import { Measure, Segments } from "./parts";

/** Say what an alert is about: its rule, or the indicator that has no data. */
function ruleTitle(alert: Alert): string {
  if (alert.kind === "no_data") return t("alerts.silent", { title: state.indicatorTitle(alert.indicator) });
  return tr("rule", alert.rule, alert.title);
}

function when(alert: Alert): string {
  const now = state.coarse.value;
  const at = (time: string) => moment(lang.value, Date.parse(time), now, state.zoneOfTime.value);
  if (alert.end) return t("alerts.range", { start: at(alert.start), stop: at(alert.end) });
  return `${t("alerts.since", { time: at(alert.start) })} · ${span(lang.value, now - Date.parse(alert.start))}`;
}

function show(alert: Alert): void {
  const known = state.indicators.value.has(alert.indicator);
  if (known) state.chooseIndicator(alert.indicator, alert.window);
  state.selection.value = { kind: "zone", id: alert.zone };
}

function Runbook({ runbook }: { runbook: string }) {
  if (!runbook) return null;
  if (!/^(https?:|\/)/.test(runbook)) {
    return (
      <span class="runbook" title={`${t("alerts.runbook")}: ${runbook}`}>
        <Book />
        <span class="visually-hidden">
          {t("alerts.runbook")}: {runbook}
        </span>
      </span>
    );
  }
  return (
    <a class="runbook" href={runbook} target="_blank" rel="noreferrer" title={`${t("alerts.runbook")}: ${runbook}`} aria-label={t("alerts.runbook")}>
      <Book />
    </a>
  );
}

function Reading({ alert }: { alert: Alert }) {
  if (alert.kind === "no_data" || alert.value === null) return null;
  const limit = alert.threshold;
  const text = limit === null ? "" : measure(limit, alert.unit, alert.indicator);
  return (
    <span class="alert-versus">
      <Measure value={alert.value} unit={alert.unit} indicator={alert.indicator} />
      {limit !== null && (
        <span class="alert-limit" title={t("alerts.over", { threshold: text })}>
          <span class="visually-hidden">{t("alerts.over", { threshold: text })}</span>
          <span aria-hidden="true">
            {alert.value < limit ? "<" : ">"} {text}
          </span>
        </span>
      )}
    </span>
  );
}

function Row({ alert }: { alert: Alert }) {
  const acknowledged = alert.acknowledged;
  const chosen = state.selection.value?.id === alert.zone;
  return (
    <li
      class={`alert ${alert.severity} ${alert.state} ${acknowledged ? "acknowledged" : ""} ${chosen ? "chosen" : ""}`}
      data-testid="alert"
      data-id={alert.id}
      data-state={alert.state}
      data-acknowledged={acknowledged !== null}
    >
      <span class="alert-mark" title={tr("severity", alert.severity)}>
        <SeverityMark severity={alert.severity} />
        <span class="visually-hidden">{tr("severity", alert.severity)}</span>
      </span>
      <Runbook runbook={alert.runbook} />
      <div class="alert-main">
        <button type="button" class="alert-title" onClick={() => show(alert)}>
          <span class="alert-zone">{state.zoneName(alert.zone)}</span>
        </button>
        <div class="alert-reading">
          <span class="alert-rule">{ruleTitle(alert)}</span>
          <Reading alert={alert} />
        </div>
        <div class="alert-meta">
          <span>{when(alert)}</span>
          {alert.state !== "firing" && <span class="chip">{t(`alerts.${alert.state}`)}</span>}
          {alert.state === "firing" && !acknowledged && mayOperate.value && (
            <button type="button" class="button ack" onClick={() => void (state.acknowledging.value = alert)} data-testid="acknowledge">
              {t("alerts.acknowledge")}
            </button>
          )}
        </div>
        {acknowledged && (
          <div class="alert-ack" title={moment(lang.value, Date.parse(acknowledged.time), state.coarse.value, state.zoneOfTime.value)}>
            <Check />
            <span>
              {t("alerts.acknowledged", { actor: acknowledged.actor })}
              <span class="dim"> · {ago(lang.value, state.coarse.value - Date.parse(acknowledged.time))}</span>
              {acknowledged.comment && <q>{acknowledged.comment}</q>}
            </span>
          </div>
        )}
      </div>
    </li>
  );
}

export function Alerts() {
  const list = state.listed.value;
  const filter = state.alertFilter.value;
  const firing = state.firing.value.length;
  const open = state.open.value.length;
  const count = (n: number) => (n ? <span class="count">{number(lang.value, n)}</span> : null);
  return (
    <section class="alerts panel" id="alerts" aria-labelledby="alerts-title" tabIndex={-1} data-testid="alerts">
      <div class="panel-head">
        <h2 id="alerts-title">{t("alerts.title")}</h2>
        <Segments
          label={t("alerts.filter")}
          testid="alert-filter"
          class="small"
          value={filter}
          onChoose={(id) => void (state.alertFilter.value = id)}
          options={[
            { id: "firing", text: <>{t("alerts.firing")} {count(firing)}</> },
            { id: "unacknowledged", text: <>{t("alerts.unacknowledged")} {count(open)}</> },
            { id: "all", text: t("alerts.all") },
          ]}
        />
      </div>
      {list.length ? (
        <ol class="alert-list">
          {list.map((alert) => (
            <Row key={alert.id} alert={alert} />
          ))}
        </ol>
      ) : (
        <div class="quiet">
          <Quiet />
          {t(`alerts.none.${filter}`)}
        </div>
      )}
    </section>
  );
}

export function AckDialog() {
  const alert = state.acknowledging.value;
  return alert ? <Dialog key={alert.id} alert={alert} /> : null;
}

function Dialog({ alert }: { alert: Alert }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const actor = useSignal(state.stored("actor") ?? "");
  const comment = useSignal("");
  const sending = useSignal(false);
  const error = useSignal("");
  const close = () => void (state.acknowledging.value = null);

  useEffect(() => {
    const opener = document.activeElement;
    dialog.current?.showModal();
    dialog.current?.querySelector<HTMLElement>(actor.peek() ? "textarea" : "input")?.focus();
    return () => (opener instanceof HTMLElement && opener.isConnected ? opener : document.getElementById("alerts"))?.focus();
  }, []);

  const submit = async (event: Event) => {
    event.preventDefault();
    sending.value = true;
    error.value = "";
    try {
      await acknowledge(alert, actor.value.trim(), comment.value.trim());
      state.store("actor", actor.value.trim());
      close();
    } catch (problem) {
      error.value = t("ack.failed", { reason: reasonOf(problem) });
    } finally {
      sending.value = false;
    }
  };
  const shortcut = (event: KeyboardEvent) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) (event.currentTarget as HTMLFormElement).requestSubmit();
  };
  return (
    <dialog ref={dialog} class="dialog" onClose={close} aria-labelledby="ack-title" data-testid="ack-dialog">
      <form onSubmit={(event) => void submit(event)} onKeyDown={shortcut}>
        <h2 id="ack-title">{t("ack.title")}</h2>
        <p class={`dialog-alert ${alert.severity}`}>
          <SeverityMark severity={alert.severity} />
          <span>
            <strong>{state.zoneName(alert.zone)}</strong> · {ruleTitle(alert)}
            <br />
            <Reading alert={alert} />
          </span>
        </p>
        <label class="field">
          <span>{t("ack.actor")}</span>
          <input
            name="actor"
            required
            maxLength={100}
            autocomplete="name"
            value={actor.value}
            onInput={(event) => void (actor.value = event.currentTarget.value)}
            data-testid="ack-actor"
          />
        </label>
        <label class="field">
          <span>{t("ack.comment")}</span>
          <textarea
            name="comment"
            rows={3}
            maxLength={2000}
            placeholder={t("ack.comment.hint")}
            value={comment.value}
            onInput={(event) => void (comment.value = event.currentTarget.value)}
            data-testid="ack-comment"
          />
        </label>
        {error.value && (
          <p class="dialog-error" role="alert">
            {error.value}
          </p>
        )}
        <div class="dialog-buttons">
          <button type="button" class="button" onClick={close} data-testid="ack-cancel">
            {t("ack.cancel")}
          </button>
          <button type="submit" class="button primary" disabled={sending.value || !actor.value.trim()} data-testid="ack-submit">
            {sending.value ? t("ack.sending") : t("ack.submit")}
          </button>
        </div>
      </form>
    </dialog>
  );
}
