/** Who looks at the page: a token is shown to the server once, and a cookie that no script sees stands for it. */
import { computed, signal } from "@preact/signals";
import { ApiError, get, post, remove, whenRefused } from "./api";
import type { Session } from "./contract";
import type { Key } from "./i18n";

export const session = signal<Session | null>(null);
/** Whether the server wants a token before it tells anything. */
export const asked = signal(false);
/** What only an operator may do is offered unless the server said that this one may only read. */
export const mayOperate = computed(() => session.value?.scope !== "read");

whenRefused(() => {
  asked.value = true;
  session.value = null;
});

export async function loadSession(): Promise<void> {
  session.value = await get<Session>("/session");
}

/** Begin a session. Returns what went wrong, as a message's key and its reason, or null. */
export async function signIn(token: string): Promise<[Key, string] | null> {
  try {
    await post<Session>("/session", { token });
  } catch (error) {
    return why(error);
  }
  try {
    await loadSession();
  } catch {
    return ["signin.cookie", ""];
  }
  asked.value = false;
  return null;
}

function why(error: unknown): [Key, string] {
  if (!(error instanceof ApiError)) return ["signin.unreachable", ""];
  const { status, title, detail } = error.problem;
  if (status === 401 || status === 422) return ["signin.wrong", ""];
  return status === 429 ? ["signin.slow", ""] : ["signin.failed", detail ?? title];
}

export async function signOut(): Promise<void> {
  await remove("/session");
  asked.value = true;
  session.value = null;
}
