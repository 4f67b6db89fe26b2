/** The live stream: server-sent events with a backoff of our own, a watchdog, and a resync after each reconnection. */

export type Connection = "connecting" | "live" | "lost";

export interface LiveOptions {
  url: string;
  events: Record<string, (data: unknown) => void>;
  onConnection: (state: Connection, retryAt: number | null) => void;
  quiet_ms: number; // no event for so long means that the connection is dead, whatever the browser thinks
  backoff_ms: readonly [number, number]; // first and largest wait
}

/** Give the wait before an attempt: doubling up to a limit, with jitter, so that a thousand pages do not return at once. */
export function backoff(attempt: number, [first, most]: readonly [number, number], random: number): number {
  return Math.min(most, first * 2 ** Math.min(attempt, 16)) * (0.5 + random / 2);
}

export class Live {
  readonly #options: LiveOptions;
  #source: EventSource | null = null;
  #attempt = 0;
  #retry = 0;
  #watchdog = 0;

  constructor(options: LiveOptions) {
    this.#options = options;
  }

  /** Connect now, whatever was waiting. */
  open(): void {
    this.#drop();
    const source = new EventSource(this.#options.url);
    this.#source = source;
    source.onerror = () => this.#lost();
    for (const [name, handle] of Object.entries(this.#options.events)) {
      source.addEventListener(name, (event) => {
        this.#alive();
        handle(JSON.parse((event as MessageEvent<string>).data));
      });
    }
    this.#watch();
  }

  close(): void {
    this.#drop();
  }

  #alive(): void {
    this.#watch();
    if (this.#attempt >= 0) this.#options.onConnection("live", null);
    this.#attempt = -1;
  }

  #watch(): void {
    clearTimeout(this.#watchdog);
    this.#watchdog = window.setTimeout(() => this.#lost(), this.#options.quiet_ms);
  }

  #lost(): void {
    this.#drop();
    this.#attempt = Math.max(0, this.#attempt + 1);
    const wait = backoff(this.#attempt - 1, this.#options.backoff_ms, Math.random());
    this.#options.onConnection("lost", Date.now() + wait);
    this.#retry = window.setTimeout(() => this.open(), wait);
  }

  #drop(): void {
    this.#source?.close();
    this.#source = null;
    clearTimeout(this.#retry);
    clearTimeout(this.#watchdog);
  }
}
