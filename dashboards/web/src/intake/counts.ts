/** The ledger's rows as a table shows them: what is silent among them, their order, and their sum. Pure. */
import type { LedgerRow } from "../contract";

export const COUNTS = ["messages", "duplicates", "accepted", "flagged", "late", "rejected", "missing"] as const;
export type Count = (typeof COUNTS)[number];

/** One line: a device, or an hour of one. `missing` is null where nothing is expected, or not yet, Infinity where all is missing. */
export interface Line extends Record<Count, number | null> {
  id: string;
  reasons: Record<string, number>;
}

const HOUR_MS = 3600_000;

export function lineOf(id: string, row: LedgerRow): Line {
  const rejected = Object.values(row.rejected).reduce((sum, count) => sum + count, 0);
  const { messages, duplicates, accepted, flagged, late, missing } = row;
  return { id, messages, duplicates, accepted, flagged, late, rejected, missing, reasons: row.rejected };
}

function silent(id: string): Line {
  return { id, messages: 0, duplicates: 0, accepted: 0, flagged: 0, late: 0, rejected: 0, missing: Infinity, reasons: {} };
}

/** Give a line for every device: the ledger has none for those that have sent nothing. */
export function linesOfDevices(rows: readonly LedgerRow[], devices: Iterable<string>): Line[] {
  const lines = new Map(rows.map((row) => [row.device ?? "", lineOf(row.device ?? "", row)]));
  for (const id of devices) if (!lines.has(id)) lines.set(id, silent(id));
  return [...lines.values()];
}

/** Give a line for every hour from the first that the ledger has up to `now` [ms], the newest first. */
export function linesOfHours(rows: readonly LedgerRow[], now: number): Line[] {
  const known = new Map(rows.map((row) => [Date.parse(row.start ?? ""), row]));
  const first = Math.min(...known.keys());
  const last = Math.floor(now / HOUR_MS) * HOUR_MS;
  const lines: Line[] = [];
  for (let hour = last; hour >= first; hour -= HOUR_MS) {
    const row = known.get(hour);
    const id = new Date(hour).toISOString();
    if (row) lines.push(lineOf(id, row));
    else if (hour < last) lines.push(silent(id)); // of the hour that goes on, nothing is said yet
  }
  return lines;
}

/** Order lines by a column, the largest first; what is not known comes last. */
export function ordered(lines: readonly Line[], by: Count | "id", nameOf: (id: string) => string): Line[] {
  const names = (a: Line, b: Line) => nameOf(a.id).localeCompare(nameOf(b.id), "en", { numeric: true });
  if (by === "id") return [...lines].sort(names);
  return [...lines].sort((a, b) => {
    const [x, y] = [a[by] ?? -1, b[by] ?? -1];
    return x === y ? names(a, b) : y - x;
  });
}

/** Sum a column up. `some` says that it is more than that: of a line, all is missing. */
export function total(lines: readonly Line[], of: Count): { sum: number; some: boolean } {
  const counts = lines.map((line) => line[of] ?? 0);
  const known = counts.filter(Number.isFinite);
  return { sum: known.reduce((sum, count) => sum + count, 0), some: known.length < counts.length };
}

/** Give the share of the largest count of a column, 0 to 1. */
export function shareOf(lines: readonly Line[], of: Count): (line: Line) => number {
  const most = Math.max(1, ...lines.map((line) => line[of] ?? 0).filter(Number.isFinite));
  return (line) => Math.min(1, (line[of] ?? 0) / most);
}
