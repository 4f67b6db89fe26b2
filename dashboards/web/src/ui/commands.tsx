/** A device's commands: the last ones with who asked and how each ended, and a form for another. */
import { useSignal } from "@preact/signals";
import { devicePath, get, postText, reasonOf, remove } from "../api";
import { payloadFault } from "../command";
import type { Command, Items } from "../contract";
import { moment, span } from "../format";
import { lang, t } from "../i18n";
import { useLoaded } from "../intake/loaded";
import { announcement } from "../load";
import { mayOperate, session } from "../session";
import * as state from "../state";

const SHOWN = 5;
const EVERY_MS = 10_000;
const EXPIRIES_S = [300, 3600, 86_400, 604_800];
const ENDED_BADLY: readonly Command["state"][] = ["refused", "expired", "unconfirmed", "too_large"];

const at = (time: string): string => moment(lang.value, Date.parse(time), state.coarse.value, state.zoneOfTime.value);

/** Say how it went, in one line: who asked when, and what the outcome has beside its name. */
function story(command: Command): string {
  const asked = command.requested_by ? [t("commands.by", { actor: command.requested_by })] : [];
  const open = command.state === "pending" || command.state === "sent";
  const more = [
    ...(open ? [t("commands.until", { time: at(command.expires) })] : []),
    ...(command.code ? [t("commands.code", { code: command.code })] : []),
    ...(command.delivered ? [at(command.delivered)] : []),
    ...(command.cancelled_by ? [t("commands.cancelledby", { actor: command.cancelled_by })] : []),
  ];
  return [at(command.requested), ...asked, ...more].join(" · ");
}

function Row({ command, onDone }: { command: Command; onDone: () => void }) {
  const error = useSignal("");
  const open = command.state === "pending" || command.state === "sent";
  const cancel = async () => {
    try {
      await remove<Command>(`/commands/${encodeURIComponent(command.id)}`);
      error.value = "";
    } catch (problem) {
      error.value = t("commands.uncancelled", { reason: reasonOf(problem) });
    }
    onDone();
  };
  const payload = JSON.stringify(command.payload);
  return (
    <li class="command" data-testid="command" data-id={command.id} data-state={command.state}>
      <code title={payload}>{payload}</code>
      <span class={`chip ${ENDED_BADLY.includes(command.state) ? "flag-3" : ""}`}>{t(`command.${command.state}`)}</span>
      <span class="command-story dim">{story(command)}</span>
      {open && mayOperate.value && (
        <button type="button" class="button" onClick={() => void cancel()} data-testid="command-cancel">
          {t("commands.cancel")}
        </button>
      )}
      {error.value && (
        <p class="dialog-error" role="alert">
          {error.value}
        </p>
      )}
    </li>
  );
}

/** Make a word that nobody else has: a request that is repeated with it asks only once. */
function newKey(): string {
  return [...crypto.getRandomValues(new Uint8Array(12))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

function Form({ device, onSent }: { device: string; onSent: () => void }) {
  const payload = useSignal("");
  const expiry = useSignal(3600);
  const actor = useSignal(state.stored("actor") ?? "");
  const key = useSignal(newKey());
  const sending = useSignal(false);
  const error = useSignal("");
  const named = !session.value?.asked;
  const change = (work: () => void) => {
    work();
    error.value = "";
    key.value = newKey();
  };
  const submit = async (event: Event) => {
    event.preventDefault();
    const [fault, params] = payloadFault(payload.value) ?? [null, {}];
    if (fault) return void (error.value = t(fault, params));
    sending.value = true;
    try {
      const rest = JSON.stringify({ expires_in_s: expiry.value, actor: named ? actor.value.trim() : "" });
      const body = `{"payload":${payload.value.trim()},${rest.slice(1)}`;
      await postText<Command>(`/devices/${devicePath(device)}/commands`, body, { "idempotency-key": key.value });
      if (named) state.store("actor", actor.value.trim());
      change(() => void (payload.value = ""));
      announcement.value = t("commands.queued");
      onSent();
    } catch (problem) {
      error.value = t("commands.failed", { reason: reasonOf(problem) });
    } finally {
      sending.value = false;
    }
  };
  return (
    <details class="more" data-testid="command-new">
      <summary>{t("commands.new")}</summary>
      <form class="command-form" onSubmit={(event) => void submit(event)} noValidate>
        <label class="field">
          <span>{t("commands.payload")}</span>
          <textarea
            rows={3}
            class="mono"
            placeholder={'{"reboot": true}'}
            spellcheck={false}
            autocapitalize="off"
            aria-invalid={error.value !== ""}
            aria-describedby="command-error"
            value={payload.value}
            onInput={(event) => change(() => void (payload.value = event.currentTarget.value))}
            data-testid="command-payload"
          />
        </label>
        <p id="command-error" class="dialog-error" role="alert" data-testid="command-error">
          {error.value}
        </p>
        <div class="command-fields">
          {named && (
            <label class="field">
              <span>{t("ack.actor")}</span>
              <input maxLength={100} autocomplete="name" value={actor.value} onInput={(event) => change(() => void (actor.value = event.currentTarget.value))} data-testid="command-actor" />
            </label>
          )}
          <label class="field pick">
            <span>{t("commands.expiry")}</span>
            <select value={expiry.value} onChange={(event) => change(() => void (expiry.value = Number(event.currentTarget.value)))} data-testid="command-expiry">
              {EXPIRIES_S.map((seconds) => (
                <option key={seconds} value={seconds}>
                  {span(lang.value, seconds * 1000)}
                </option>
              ))}
            </select>
          </label>
          <button type="submit" class="button primary" disabled={sending.value || !payload.value.trim()} data-testid="command-send">
            {t(sending.value ? "commands.sending" : "commands.submit")}
          </button>
        </div>
      </form>
    </details>
  );
}

export function Commands({ device }: { device: string }) {
  const loaded = useLoaded((abort) => get<Items<Command>>(`/devices/${devicePath(device)}/commands`, { limit: SHOWN }, abort), [device], EVERY_MS);
  const commands = loaded.data.value?.items;
  return (
    <section class="commands" aria-labelledby="commands-title" data-testid="commands">
      <h3 id="commands-title">{t("commands.title")}</h3>
      {loaded.error.value && !commands && <p class="dialog-error">{t("intake.failed", { reason: loaded.error.value })}</p>}
      {commands && !commands.length && <p class="dim">{t("commands.none")}</p>}
      {commands && commands.length > 0 && (
        <ul class="command-list">
          {commands.map((command) => (
            <Row key={command.id} command={command} onDone={loaded.again} />
          ))}
        </ul>
      )}
      {mayOperate.value ? (
        <Form key={device} device={device} onSent={loaded.again} />
      ) : (
        <p class="dim" data-testid="commands-readonly">
          {t("commands.readonly")}
        </p>
      )}
    </section>
  );
}
