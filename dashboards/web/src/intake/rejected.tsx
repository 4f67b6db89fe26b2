/** What was rejected, why, at which byte, and trying it again. */
import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { get, post, reasonOf } from "../api";
import type { Items, Rejected, RejectedCount, Replayed } from "../contract";
import { ago, moment, number } from "../format";
import { lang, t, tr } from "../i18n";
import { mayOperate } from "../session";
import * as state from "../state";
import { Pick } from "../ui/parts";
import { excerpt } from "./excerpt";
import { useLoaded } from "./loaded";
import { Waiting } from "./sheet";

const PAGE = 50;

function Payload({ item }: { item: Rejected }) {
  if (!item.payload) return <span class="dim">{t("rejections.empty")}</span>;
  const part = excerpt(item.payload, item.payload_encoding, item.offset);
  const beyond = item.offset !== null && !part.bad;
  return (
    <>
      <code class="payload" data-testid="rejected-payload">
        {part.cutBefore && "… "}
        {part.before}
        {part.bad && (
          <mark title={t("rejections.byte.hint")} data-testid="rejected-byte" data-offset={item.offset}>
            {part.bad}
          </mark>
        )}
        {part.after}
        {(part.cutAfter || item.payload_cut) && " …"}
      </code>
      {item.offset !== null && (
        <span class="dim" title={t("rejections.byte.hint")}>
          {t(beyond ? "rejections.beyond" : "rejections.byte", { offset: number(lang.value, item.offset) })}
        </span>
      )}
    </>
  );
}

function Row({ item }: { item: Rejected }) {
  const at = Date.parse(item.received);
  return (
    <li class="rejection" data-testid="rejected" data-reason={item.reason} data-device={item.device}>
      <div class="rejection-head">
        <strong title={item.reason}>{tr("rejected", item.reason)}</strong>
        {state.devices.value.has(item.device) ? (
          <button type="button" class="link" title={item.topic} onClick={() => state.showDevice(item.device)}>
            {state.deviceName(item.device)}
          </button>
        ) : (
          <code class="dim">{item.device || item.topic}</code>
        )}
        <time class="dim" dateTime={item.received} title={moment(lang.value, at, state.coarse.value, state.zoneOfTime.value)}>
          {ago(lang.value, Math.max(0, state.coarse.value - at))}
        </time>
      </div>
      <div class="rejection-body">
        <Payload item={item} />
      </div>
      <p class="dim">
        {item.detail}
        {item.readings > 1 && ` · ${t("rejections.stands", { count: number(lang.value, item.readings) }, item.readings)}`}
      </p>
    </li>
  );
}

/** Asks once more before it decodes, and says what it came to. */
function Replay({ reason, device, onDone }: { reason: string; device: string; onDone: () => void }) {
  const stage = useSignal<"idle" | "asking" | "sending">("idle");
  const told = useSignal("");
  const confirm = useRef<HTMLButtonElement>(null);
  const opener = useRef<HTMLButtonElement>(null);
  const asked = useRef(false);
  useEffect(() => {
    if (stage.value === "asking") confirm.current?.focus();
    else if (stage.value === "idle" && asked.current) opener.current?.focus();
    asked.current = stage.value !== "idle";
  }, [stage.value]);
  const stop = () => void (stage.value = "idle");
  const replay = async () => {
    stage.value = "sending";
    try {
      const done = await post<Replayed>("/rejected/replay", { reason: reason || null, device: device || null });
      const [replayed, accepted, still, pruned] = [done.replayed, done.accepted, done.still_rejected, done.pruned].map((count) => number(lang.value, count));
      told.value = t("rejections.replay.done", { replayed: replayed ?? "", accepted: accepted ?? "", still: still ?? "", pruned: pruned ?? "" });
      onDone();
    } catch (problem) {
      told.value = t("rejections.replay.failed", { reason: reasonOf(problem) });
    } finally {
      stop();
    }
  };
  if (!mayOperate.value) return <p class="replay dim">{t("rejections.readonly")}</p>;
  const what = t(reason || device ? "rejections.replay.some" : "rejections.replay.all");
  return (
    <div class="replay">
      {stage.value === "idle" ? (
        <button ref={opener} type="button" class="button" onClick={() => void (stage.value = "asking")} data-testid="replay">
          {t("rejections.replay")}
        </button>
      ) : (
        <div class="replay-ask" role="group" aria-label={t("rejections.replay")}>
          <span>{t("rejections.replay.ask", { what })}</span>
          <button type="button" class="button" onClick={stop} disabled={stage.value === "sending"} data-testid="replay-cancel">
            {t("ack.cancel")}
          </button>
          <button ref={confirm} type="button" class="button primary" onClick={() => void replay()} disabled={stage.value === "sending"} data-testid="replay-confirm">
            {t(stage.value === "sending" ? "rejections.replay.sending" : "rejections.replay")}
          </button>
        </div>
      )}
      <p class="replay-told" role="status" data-testid="replay-told">
        {told.value}
      </p>
    </div>
  );
}

function sumBy(counts: readonly RejectedCount[], key: "reason" | "device"): [string, number][] {
  const sums = new Map<string, number>();
  for (const row of counts) if (row[key]) sums.set(row[key], (sums.get(row[key]) ?? 0) + row.count + row.dropped);
  return [...sums].sort(([, a], [, b]) => b - a);
}

export function RejectedView({ device }: { device: string }) {
  const reason = useSignal("");
  const limit = useSignal(PAGE);
  const counts = useLoaded((abort) => get<Items<RejectedCount>>("/rejected/summary", {}, abort), []);
  const asked = { reason: reason.value, device, limit: limit.value };
  const found = useLoaded((abort) => get<Items<Rejected>>("/rejected", asked, abort), Object.values(asked));
  const [summary, page] = [counts.data.value?.items, found.data.value];
  if (!summary || !page) return <Waiting error={counts.error.value || found.error.value} />;
  const mine = summary.filter((row) => (!device || row.device === device) && (!reason.value || row.reason === reason.value));
  const [kept, dropped] = [mine.reduce((sum, row) => sum + row.count, 0), mine.reduce((sum, row) => sum + row.dropped, 0)];
  const option = (text: string, count: number) => `${text} (${number(lang.value, count)})`;
  const devices = sumBy(summary, "device");
  if (device && !devices.some(([id]) => id === device)) devices.push([device, 0]);
  return (
    <>
      <div class="sheet-tools">
        <Pick
          label={t("rejections.reason")}
          testid="rejected-reason"
          value={reason.value}
          onPick={(id) => void (reason.value = id)}
          groups={[{ options: [{ id: "", text: t("rejections.reasons") }, ...sumBy(summary, "reason").map(([id, count]) => ({ id, text: option(tr("rejected", id), count) }))] }]}
        />
        <Pick
          label={t("ledger.device")}
          testid="rejected-device"
          value={device}
          onPick={(id) => state.showIntake("rejected", id)}
          groups={[{ options: [{ id: "", text: t("rejections.devices") }, ...devices.map(([id, count]) => ({ id, text: option(state.deviceName(id), count) }))] }]}
        />
        <span class="dim" data-testid="rejected-kept" data-kept={kept} data-dropped={dropped}>
          {t("rejections.kept", { count: number(lang.value, kept) })}
          {dropped > 0 && <strong class="grave">, {t("rejections.overflow", { count: number(lang.value, dropped) })}</strong>}
        </span>
      </div>
      {kept > 0 && (
        <Replay
          reason={reason.value}
          device={device}
          onDone={() => {
            counts.again();
            found.again();
          }}
        />
      )}
      <div class="sheet-scroll">
        {page.items.length ? (
          <ol class="rejections">
            {page.items.map((item) => (
              <Row key={`${item.journal} ${item.position} ${item.item}`} item={item} />
            ))}
          </ol>
        ) : (
          <p class="sheet-note dim">{t(summary.length ? "rejections.nomatch" : "rejections.none")}</p>
        )}
        {page.next && (
          <button type="button" class="button more-rows" onClick={() => void (limit.value *= 2)} data-testid="rejected-more">
            {t("rejections.more")}
          </button>
        )}
      </div>
    </>
  );
}
