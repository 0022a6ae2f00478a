// What a read of a damaged or hostile input may do: give a value, or a UserError that says what is wrong in a sentence.
// Everything else is a fault, and is thrown as one.

import { UserError } from "../../src/core/errors.ts";

export const FAULTS = ["wrong", "hang", "stack", "memory"] as const;
export type FaultKind = (typeof FAULTS)[number];

export class Fault extends Error {
  readonly kind: FaultKind;
  constructor(kind: FaultKind, message: string) {
    super(message);
    this.kind = kind;
  }
}

/** Throws where a result is not what it must be. */
export function expect(isRight: boolean, message: () => string): void {
  if (!isRight) throw new Fault("wrong", message());
}

export type Read<T> = { readonly value: T } | { readonly refusal: UserError };

/** The value, or the refusal, whose message must name one of these. */
export async function reading<T>(
  names: readonly string[],
  read: () => T | Promise<T>,
): Promise<Read<T>> {
  try {
    return { value: await read() };
  } catch (error) {
    checkRefusal(error, names);
    return { refusal: error };
  }
}

/** Longer than any list of mistakes that people read. */
const maxLength = 5000;

function checkRefusal(error: unknown, names: readonly string[]): asserts error is UserError {
  if (error instanceof Fault) throw error;
  if (!(error instanceof UserError))
    throw new Fault(
      "stack",
      error instanceof Error ? (error.stack ?? String(error)) : String(error),
    );
  for (const text of [error.message, error.hint ?? ""]) {
    const flaw =
      text.length > maxLength
        ? `${text.length} characters long`
        : /(?!\n)\p{Cc}/u.test(text)
          ? "with control characters"
          : /\n\s+at |of undefined|of null|is not a function|not iterable|\[object |^internal/.test(
                text,
              )
            ? "of the program's inside"
            : undefined;
    if (flaw) throw new Fault("stack", `a message ${flaw}: ${JSON.stringify(text.slice(0, 1000))}`);
  }
  if (!names.some((name) => error.message.includes(name)))
    throw new Fault("stack", `the message names none of ${names.join(", ")}: ${error.message}`);
}

/** What came of a case; `same` as without the mutation, or `other`, and right all the same. */
export const OUTCOMES = ["same", "other", "refused"] as const;
export type Outcome = (typeof OUTCOMES)[number];
