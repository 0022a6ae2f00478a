// Two kinds of failure: what a user can mend (UserError), and what only the program's authors can (invariant).

export interface UserErrorOptions {
  /** What to do about it; printed after the message. */
  readonly hint?: string | undefined;
  /** 2 for wrong usage or configuration (default), 1 for work that failed. */
  readonly exitCode?: 1 | 2;
  readonly cause?: unknown;
}

/** A mistake or a circumstance that the user can mend. The message says what was expected and what was found. */
export class UserError extends Error {
  readonly hint: string | undefined;
  readonly exitCode: 1 | 2;

  constructor(message: string, { hint, exitCode = 2, cause }: UserErrorOptions = {}) {
    super(legible(message), cause === undefined ? undefined : { cause });
    this.name = "UserError";
    this.hint = hint && legible(hint);
    this.exitCode = exitCode;
  }
}

/** Numbers that came to their end: the work is in order, but not what it was told to do. */
export class NotFiniteError extends UserError {}

/** Control characters as JSON writes them. */
export function printable(text: string): string {
  const code = (c: string) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`;
  return text.replace(/\p{Cc}/gu, code);
}

// A message quotes what files and servers hold: nothing in it moves a cursor, and it has an end.
function legible(text: string): string {
  const visible = text.split("\n").map(printable).join("\n");
  return visible.length > 4000 ? `${visible.slice(0, 4000)}…` : visible;
}

/** Throws `internal: message` unless the condition holds; for mistakes in this program, never for a user's. */
export function invariant(condition: unknown, message: string): asserts condition {
  if (!condition) throw new Error(`internal: ${message}`);
}

export const messageOf = (error: unknown) =>
  error instanceof Error ? error.message : String(error);

/** What `make` gives or, where it throws, the other. */
export function orElse<T, Other>(make: () => T, other: Other): T | Other {
  try {
    return make();
  } catch {
    return other;
  }
}

/** The code of a system error, e.g. "ENOSPC". */
export function codeOf(error: unknown): string | undefined {
  const code = error instanceof Error && "code" in error ? error.code : undefined;
  return typeof code === "string" ? code : undefined;
}

/** The known word nearest to a mistyped one (edit distance at most a third of its length, at least 2), if any. */
export function nearest(word: string, known: Iterable<string>): string | undefined {
  const limit = Math.max(2, Math.floor(word.length / 3));
  const near = [...known]
    .map((name) => ({ name, distance: editDistance(word.toLowerCase(), name.toLowerCase()) }))
    .filter(({ distance }) => distance <= limit);
  return near.sort((a, b) => a.distance - b.distance)[0]?.name;
}

/** `did you mean "…"?`, where a known word is near. */
export function didYouMean(word: string, known: Iterable<string>): string | undefined {
  const guess = nearest(word, known);
  return guess === undefined ? undefined : `did you mean "${guess}"?`;
}

/** Refuses a word that is none of the known ones. */
export const unsupported = (problem: string, word: string, known: readonly string[]) =>
  new UserError(`${problem} is not supported`, {
    hint: `supported: ${known.join(", ")}. ${didYouMean(word, known) ?? ""}`.trim(),
  });

function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  let before = row;
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const substitution = row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      const isSwap = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1];
      const swap = isSwap ? before[j - 2]! + 1 : Infinity;
      next.push(Math.min(row[j]! + 1, next[j - 1]! + 1, substitution, swap));
    }
    [before, row] = [row, next];
  }
  return row[b.length]!;
}
