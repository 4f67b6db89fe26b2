/** The part of a rejected payload that is worth showing: what lies around the first bad byte, which is marked. Pure. */
export interface Excerpt {
  before: string;
  bad: string;
  after: string;
  cutBefore: boolean;
  cutAfter: boolean;
}

const BEFORE = 40;
const AFTER = 80;
const SPACE = 0x20;
const DELETE = 0x7f;

/** Write bytes so that every one of them is seen: text where it is text, the rest in hexadecimal. */
export function spell(bytes: Uint8Array): string {
  try {
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    return text.replace(/[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]/gu, (sign) => escaped(new TextEncoder().encode(sign)));
  } catch {
    return [...bytes].map((byte) => (byte >= SPACE && byte < DELETE ? String.fromCharCode(byte) : escaped([byte]))).join("");
  }
}

function escaped(bytes: Iterable<number>): string {
  return [...bytes].map((byte) => `\\x${byte.toString(16).padStart(2, "0")}`).join("");
}

function bytesOf(payload: string, encoding: "utf-8" | "base64"): Uint8Array {
  if (encoding === "utf-8") return new TextEncoder().encode(payload);
  return Uint8Array.from(atob(payload), (letter) => letter.charCodeAt(0));
}

const continues = (byte: number | undefined): boolean => byte !== undefined && (byte & 0xc0) === 0x80;

/** Move a cut back to where a letter begins, at most the three bytes that one may have before. */
function atLetter(bytes: Uint8Array, at: number): number {
  let cut = at;
  while (cut > 0 && at - cut < 3 && continues(bytes[cut])) cut -= 1;
  return continues(bytes[cut]) ? at : cut;
}

/** Cut a payload around its first bad byte; `offset` null: from its beginning. A whole letter is marked where the byte is part of one. */
export function excerpt(payload: string, encoding: "utf-8" | "base64", offset: number | null): Excerpt {
  const bytes = bytesOf(payload, encoding);
  const known = offset !== null && offset < bytes.length;
  const text = encoding === "utf-8";
  const align = (at: number) => (text ? atLetter(bytes, at) : at);
  const bad = known ? align(offset) : null;
  const start = align(Math.max(0, (bad ?? 0) - BEFORE));
  let next = bad === null ? start : bad + 1;
  while (bad !== null && text && continues(bytes[next])) next += 1;
  const stop = Math.max(next, align(Math.min(bytes.length, next + AFTER + (bad === null ? BEFORE : 0))));
  return {
    before: bad === null ? "" : spell(bytes.subarray(start, bad)),
    bad: bad === null ? "" : spell(bytes.subarray(bad, next)),
    after: spell(bytes.subarray(next, stop)),
    cutBefore: start > 0,
    cutAfter: stop < bytes.length,
  };
}
