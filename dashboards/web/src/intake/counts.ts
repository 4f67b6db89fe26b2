/** The ledger's rows as a table shows them: their order, their sum, and their shares. Pure. */
import type { LedgerRow } from "../contract";

export const COUNTS = ["messages", "duplicates", "accepted", "flagged", "late", "rejected", "missing"] as const;
export type Count = (typeof COUNTS)[number];

/** One line: a device, or an hour of one. `missing` is null where nothing is expected, or not yet. */
export interface Line extends Record<Count, number | null> {
  id: string;
  reasons: Record<string, number>;
}

function lineOf(id: string, row: LedgerRow): Line {
  const rejected = Object.values(row.rejected).reduce((sum, count) => sum + count, 0);
  const { messages, duplicates, accepted, flagged, late, missing } = row;
  return { id, messages, duplicates, accepted, flagged, late, rejected, missing, reasons: row.rejected };
}

export function linesOfDevices(rows: readonly LedgerRow[]): Line[] {
  return rows.map((row) => lineOf(row.device ?? "", row));
}

/** Give a line for every hour, the newest first: the API gives them rising. */
export function linesOfHours(rows: readonly LedgerRow[]): Line[] {
  return rows.map((row) => lineOf(row.start ?? "", row)).reverse();
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

/** Sum a column up; what is not known adds nothing, and where nothing is, neither is the sum. */
export function total(lines: readonly Line[], of: Count): number | null {
  return lines.reduce<number | null>((sum, line) => (line[of] === null ? sum : (sum ?? 0) + line[of]), null);
}

/** Give the share of the largest count of a column, 0 to 1. */
export function shareOf(lines: readonly Line[], of: Count): (line: Line) => number {
  const most = Math.max(1, ...lines.map((line) => line[of] ?? 0));
  return (line) => (line[of] ?? 0) / most;
}
