// How work ends before its end: by a signal, after what must not be cut in two.

import type { CommandIo } from "./io.ts";

/** Ctrl+C, kill, a closed terminal, and Slurm's notice before the time is up (which Node would take for a debugger's). */
const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1"] as const;

/**
 * Does work that the first signal asks to stop, `when`; its exit code is 130 then. A second one ends the process as
 * Ctrl+C does to any program, which is 130 to a shell; `process.exit` would abort it in the middle of a session's run.
 */
export async function stoppable(
  io: CommandIo,
  when: string,
  work: (signal: AbortSignal) => Promise<void>,
): Promise<void> {
  const controller = new AbortController();
  const { signal } = controller;
  const release = () => SIGNALS.forEach((name) => process.off(name, onSignal));
  const onSignal = () => {
    if (signal.aborted) {
      io.progress.done();
      release();
      process.kill(process.pid, "SIGINT");
      return;
    }
    controller.abort();
    io.progress.line(`stopping ${when}; once more to leave at once`);
  };
  SIGNALS.forEach((name) => process.on(name, onSignal));
  try {
    await work(signal);
  } catch (error) {
    if (!signal.aborted || error !== signal.reason) throw error;
    io.exitCode = 130;
  } finally {
    release();
    io.progress.done();
  }
}
