/** Checks a command's payload before it is sent. Pure. */
import type { Key, Params } from "./i18n";

const BYTES_MAX = 60_000; // the server takes 64 KiB, with what surrounds the payload
const EXAMPLE = '{"reboot": true}';

/** Say what is wrong with a payload, as a message's key and parameters; null where it may be sent. */
export function payloadFault(text: string): [Key, Params] | null {
  if (new TextEncoder().encode(text).length > BYTES_MAX) return ["commands.toolarge", { limit: "60 kB" }];
  try {
    const value: unknown = JSON.parse(text);
    const isObject = typeof value === "object" && value !== null && !Array.isArray(value);
    return isObject ? null : ["commands.notobject", { example: EXAMPLE }];
  } catch (error) {
    const position = /position (\d+)/.exec(String(error))?.[1];
    return position ? ["commands.badjson.at", { position: Number(position) + 1 }] : ["commands.badjson", {}];
  }
}
