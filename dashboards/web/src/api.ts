/** The server's API. Paths are relative to the page, so that it works below any mount point. */
import type { Items, Problem } from "./contract";

export const API = "./api/v1";
const PAGES_MAX = 20;

export class ApiError extends Error {
  readonly problem: Problem;

  constructor(problem: Problem) {
    super(problem.detail || problem.title);
    this.problem = problem;
  }
}

export type Query = Record<string, string | number | null | undefined>;

/** Make a path with a query, leaving out what is empty. */
export function path(route: string, query: Query = {}): string {
  const words = Object.entries(query)
    .filter(([, value]) => value !== null && value !== undefined && value !== "")
    .map(([key, value]) => `${key}=${encodeURIComponent(String(value))}`);
  return words.length ? `${route}?${words.join("&")}` : route;
}

async function failure(response: Response): Promise<ApiError> {
  const nothing: Problem = { title: response.statusText || "error", status: response.status };
  try {
    return new ApiError({ ...nothing, ...((await response.json()) as Problem) });
  } catch {
    return new ApiError(nothing);
  }
}

let refused = (): void => undefined;

/** Say what to do when the server asks who we are. */
export function whenRefused(handle: () => void): void {
  refused = handle;
}

async function send<T>(route: string, init?: RequestInit): Promise<T> {
  const response = await fetch(`${API}${route}`, init);
  if (response.status === 401) refused();
  if (!response.ok) throw await failure(response);
  return (response.status === 204 ? null : await response.json()) as T;
}

export function get<T>(route: string, query?: Query, signal?: AbortSignal): Promise<T> {
  return send<T>(path(route, query), signal ? { signal } : undefined);
}

/** Get every item of a list, page by page. */
export async function all<T>(route: string, query: Query = {}, signal?: AbortSignal): Promise<T[]> {
  const items: T[] = [];
  let cursor: string | null | undefined;
  for (let page = 0; page < PAGES_MAX; page += 1) {
    const answer = await get<Items<T>>(route, { ...query, cursor }, signal);
    items.push(...answer.items);
    cursor = answer.next;
    if (!cursor) break;
  }
  return items;
}

const JSON_TYPE = { "content-type": "application/json" };

export function post<T>(route: string, body: unknown): Promise<T> {
  return postText<T>(route, JSON.stringify(body));
}

/** Post JSON as it was written: its numbers stay what they are. */
export function postText<T>(route: string, body: string, headers: Record<string, string> = {}): Promise<T> {
  return send<T>(route, { method: "POST", headers: { ...JSON_TYPE, ...headers }, body });
}

export function remove<T = null>(route: string): Promise<T> {
  return send<T>(route, { method: "DELETE", headers: JSON_TYPE });
}

/** Say what went wrong in the server's words, with its hint. */
export function reasonOf(error: unknown): string {
  if (!(error instanceof ApiError)) return String(error);
  return [error.problem.detail || error.problem.title, error.problem.hint].filter(Boolean).join(" ");
}

/** Encode a device id for a path: its slash separates segments there too. */
export function devicePath(device: string): string {
  return device.split("/").map(encodeURIComponent).join("/");
}
