// A conversation on a terminal: what is typed is answered, with all that was said before.

import { createInterface } from "node:readline/promises";
import { messageOf, UserError } from "../src/core/errors.ts";
import type { Message } from "../src/data/chat-answers.ts";
import type { CommandIo } from "./io.ts";

/** Ends with /exit, at the end of the input, or by Ctrl+C where no answer is under way, else that ends the answer. */
export async function converse(
  { stdin: input, stderr, progress, isTty }: CommandIo,
  signal: AbortSignal,
  answer: (messages: readonly Message[], stop: AbortSignal) => Promise<{ readonly text: string }>,
): Promise<void> {
  progress.done();
  const lines = createInterface({ input, output: process.stderr, terminal: isTty, prompt: "> " });
  let turn: AbortController | undefined;
  lines.on("SIGINT", () => (turn ? turn.abort() : lines.close()));
  signal.addEventListener("abort", () => lines.close(), { once: true });
  stderr.write("/exit ends the conversation, Ctrl+C an answer\n");
  const messages: Message[] = [];
  lines.prompt();
  for await (const line of lines) {
    if (line.trim() === "/exit") break;
    if (line.trim() !== "") {
      turn = new AbortController();
      const said = [...messages, { role: "user", content: line }];
      try {
        const { text } = await answer(said, AbortSignal.any([signal, turn.signal]));
        // Some templates write a space before an answer, which is then generated with it.
        messages.splice(0, Infinity, ...said, { role: "assistant", content: text.trim() });
      } catch (error) {
        // Too long, for example: what was said before still stands.
        if (!(error instanceof UserError)) throw error;
        stderr.write(`${messageOf(error)}${error.hint ? `; ${error.hint}` : ""}\n`);
      }
      turn = undefined;
    }
    if (signal.aborted) break;
    lines.prompt();
  }
  lines.close();
}
