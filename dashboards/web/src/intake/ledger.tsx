/** The ledger: every device of the last 24 hours, and the hours of one of them. */
import { useSignal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { all } from "../api";
import type { LedgerRow } from "../contract";
import { moment, number } from "../format";
import { lang, t, tr } from "../i18n";
import * as state from "../state";
import { Back } from "../ui/icons";
import { Pick } from "../ui/parts";
import { COUNTS, type Count, type Line, linesOfDevices, linesOfHours, ordered, shareOf, total } from "./counts";
import { useLoaded } from "./loaded";
import { Waiting } from "./sheet";

const ROWS_MAX = 300;
const PAGE = 300; // what is missing is only looked through for so many devices at once

const nameOf = (id: string): string => (id ? state.deviceName(id) : t("ledger.unknown"));

export function reasonsText(reasons: Record<string, number>): string {
  const sorted = Object.entries(reasons).sort(([, a], [, b]) => b - a);
  return sorted.map(([reason, count]) => `${tr("rejected", reason)}:\u00a0${number(lang.value, count)}`).join(", ");
}

function Number_({ count, of }: { count: number | null; of: Count }) {
  if (count === null) return <span class="dim">–</span>;
  const grave = count > 0 && (of === "rejected" || of === "missing");
  return <span class={grave ? "grave" : count ? "" : "zero"}>{number(lang.value, count)}</span>;
}

interface HeadProps {
  first: "device" | "hour";
  by: Count | "id";
  onSort?: (by: Count | "id") => void;
  onExplain: (key: Count | "device" | "hour") => void;
}

/** The columns' names. Each explains itself below the table's head when it is pointed at or has the focus. */
function Head({ first, by, onSort, onExplain }: HeadProps) {
  const column = (key: Count | "device" | "hour", id: Count | "id") => (
    <th
      key={key}
      scope="col"
      class={`${id === "id" ? "" : "num"} ${by === id ? "on" : ""}`}
      data-count={id}
      aria-sort={onSort && by === id ? (id === "id" ? "ascending" : "descending") : undefined}
      onPointerEnter={() => onExplain(key)}
    >
      <button
        type="button"
        class={by === id ? "column on" : "column"}
        onFocus={() => onExplain(key)}
        onClick={() => onSort?.(id)}
        aria-describedby={`ledger-hint-${key}`}
        data-testid={`ledger-sort-${key}`}
      >
        {t(`ledger.${key}`)}
      </button>
      <span id={`ledger-hint-${key}`} hidden>
        {t(`ledger.hint.${key}`)}
      </span>
    </th>
  );
  return (
    <thead>
      <tr class="groups" aria-hidden="true">
        <td />
        <td colSpan={2}>
          <span>{t("ledger.group.messages")}</span>
        </td>
        <td colSpan={5}>
          <span>{t("ledger.group.readings")}</span>
        </td>
      </tr>
      <tr>
        {column(first, "id")}
        {COUNTS.map((count) => column(count, count))}
      </tr>
    </thead>
  );
}

interface TableProps {
  caption: string;
  first: "device" | "hour";
  lines: readonly Line[];
  of: readonly Line[];
  by: Count | "id";
  onSort?: (by: Count | "id") => void;
  name: (line: Line) => ComponentChildren;
  reasons?: boolean;
  device?: string;
}

function Counts({ line, share, by, onRejected, reasons }: { line: Line; share: number; by: Count | "id"; onRejected?: () => void; reasons: boolean }) {
  return (
    <>
      {COUNTS.map((count) => (
        <td key={count} class={`num ${count === by ? "on" : ""}`} data-count={count} data-value={line[count] ?? ""} title={count === "rejected" ? reasonsText(line.reasons) : undefined}>
          {count === "rejected" && line.rejected && onRejected ? (
            <button type="button" class="link grave" onClick={onRejected} data-testid="ledger-rejected">
              {number(lang.value, line.rejected)}
            </button>
          ) : (
            <Number_ count={line[count]} of={count} />
          )}
          {count === by && (
            <span class="share" aria-hidden="true">
              <span style={{ width: `${share * 100}%` }} />
            </span>
          )}
          {count === "rejected" && reasons && line.rejected !== 0 && <span class="why">{reasonsText(line.reasons)}</span>}
        </td>
      ))}
    </>
  );
}

function Table({ caption, first, lines, of, by, onSort, name, reasons = false, device }: TableProps) {
  const explained = useSignal<Count | "device" | "hour" | null>(null);
  const key = explained.value ?? (by === "id" ? first : by);
  const share = shareOf(of, by === "id" ? "messages" : by);
  return (
    <>
      <p class="explain" data-testid="ledger-explain">
        <strong>{t(`ledger.${key}`)}.</strong> {t(`ledger.hint.${key}`)}
      </p>
      <div class="sheet-scroll">
        <table class={`ledger ${onSort ? "sortable" : ""}`} onPointerLeave={() => void (explained.value = null)}>
          <caption class="visually-hidden">{caption}</caption>
          <Head first={first} by={by} onExplain={(column) => void (explained.value = column)} {...(onSort ? { onSort } : {})} />
          <tbody>
            <tr class="total" data-testid="ledger-total">
              <th scope="row">{t("ledger.total")}</th>
              {COUNTS.map((count) => {
                const sum = total(of, count);
                return (
                  <td key={count} class={`num ${count === by ? "on" : ""}`} data-count={count} data-value={sum ?? ""}>
                    {sum === null ? <span class="dim">–</span> : number(lang.value, sum)}
                  </td>
                );
              })}
            </tr>
            {lines.map((line) => {
              const about = device ?? line.id;
              return (
                <tr key={line.id} data-testid="ledger-row" data-id={line.id}>
                  <th scope="row">{name(line)}</th>
                  <Counts line={line} share={share(line)} by={by} reasons={reasons} {...(about ? { onRejected: () => state.showIntake("rejected", about) } : {})} />
                </tr>
              );
            })}
          </tbody>
        </table>
      </div>
    </>
  );
}

function AllDevices() {
  const loaded = useLoaded((abort) => all<LedgerRow>("/ledger", { by: "device", limit: PAGE }, abort), []);
  const by = useSignal<Count | "id">("missing");
  const search = useSignal("");
  const rows = loaded.data.value;
  if (!rows) return <Waiting error={loaded.error.value} />;
  const lines = linesOfDevices(rows);
  if (!lines.length) return <p class="sheet-note dim">{t("ledger.none")}</p>;
  const word = search.value.trim().toLowerCase();
  const found = lines.filter((line) => !word || `${line.id} ${nameOf(line.id)}`.toLowerCase().includes(word));
  const shown = ordered(found, by.value, nameOf).slice(0, ROWS_MAX);
  const left = found.length - shown.length;
  return (
    <>
      <div class="sheet-tools">
        <span class="dim">{t("ledger.last24")}</span>
        <span class="grow" />
        <Pick
          label={t("ledger.by")}
          testid="ledger-by"
          class="only-narrow"
          value={by.value}
          onPick={(column) => void (by.value = column as Count | "id")}
          groups={[{ options: [{ id: "id", text: t("ledger.device") }, ...COUNTS.map((id) => ({ id, text: t(`ledger.${id}`) }))] }]}
        />
        <input
          type="search"
          class="search"
          placeholder={t("ledger.search")}
          aria-label={t("ledger.search")}
          value={search.value}
          onInput={(event) => void (search.value = event.currentTarget.value)}
          data-testid="ledger-search"
        />
      </div>
      {found.length ? (
        <Table
          caption={t("ledger.caption")}
          first="device"
          lines={shown}
          of={found}
          by={by.value}
          onSort={(column) => void (by.value = column)}
          name={(line) =>
            line.id ? (
              <button type="button" class="link" title={line.id} onClick={() => state.showIntake("ledger", line.id)} data-testid="ledger-device">
                {nameOf(line.id)}
              </button>
            ) : (
              <span class="dim">{nameOf(line.id)}</span>
            )
          }
        />
      ) : (
        <p class="sheet-note dim">{t("ledger.nomatch")}</p>
      )}
      {left > 0 && <p class="sheet-foot dim">{t("ledger.more", { count: number(lang.value, left) }, left)}</p>}
    </>
  );
}

function Hours({ device }: { device: string }) {
  const loaded = useLoaded((abort) => all<LedgerRow>("/ledger", { device }, abort), [device]);
  const rows = loaded.data.value;
  const lines = rows ? linesOfHours(rows) : [];
  const hour = (line: Line) => moment(lang.value, Date.parse(line.id), state.coarse.value, state.zoneOfTime.value);
  return (
    <>
      <div class="sheet-tools">
        <button type="button" class="button iconed" onClick={() => state.showIntake("ledger")} data-testid="ledger-back">
          <Back /> {t("ledger.back")}
        </button>
        <h3 data-testid="ledger-of" data-device={device}>
          {nameOf(device)} <code class="dim">{device}</code>
        </h3>
        <span class="grow" />
        {state.devices.value.has(device) && (
          <button type="button" class="button" onClick={() => state.showDevice(device)} data-testid="ledger-show">
            {t("ledger.show")}
          </button>
        )}
      </div>
      {!rows && <Waiting error={loaded.error.value} />}
      {rows && !lines.length && <p class="sheet-note dim">{t("ledger.none")}</p>}
      {lines.length > 0 && (
        <Table caption={t("ledger.caption.hours", { device: nameOf(device) })} first="hour" lines={lines} of={lines} by="messages" name={hour} reasons device={device} />
      )}
    </>
  );
}

export function LedgerView({ device }: { device: string }) {
  return device ? <Hours key={device} device={device} /> : <AllDevices />;
}
