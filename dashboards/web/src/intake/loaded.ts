/** What a view loads for itself: when it opens, when what it asks for changes, each minute, and after a resync. */
import { type ReadonlySignal, useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { reasonOf } from "../api";
import { synced } from "../load";
import { coarse } from "../state";

const EVERY_MS = 60_000;

export interface Loaded<T> {
  data: ReadonlySignal<T | null>;
  error: ReadonlySignal<string>;
  again: () => void;
}

/** Load something; the old stays until the new is there. */
export function useLoaded<T>(load: (abort: AbortSignal) => Promise<T>, asked: readonly unknown[], everyMs = EVERY_MS): Loaded<T> {
  const data = useSignal<T | null>(null);
  const error = useSignal("");
  const times = useSignal(0);
  const beat = Math.floor(coarse.value / everyMs);
  useEffect(() => {
    const abort = new AbortController();
    load(abort.signal).then(
      (found) => {
        data.value = found;
        error.value = "";
      },
      (problem: unknown) => {
        if (!abort.signal.aborted) error.value = reasonOf(problem);
      },
    );
    return () => abort.abort();
  }, [...asked, beat, synced.value, times.value]);
  return { data, error, again: () => void (times.value += 1) };
}
