// Programs that take turns in memory, so that a process needs room for the largest and not for all.

import type { Engine, Program } from "./engine.ts";

/**
 * The engine, holding only the program that ran last: another's weights and activations are released first, and it is
 * compiled again when it runs. Worth it where runs come in long rows. `compile` itself shows that a program can be had.
 */
export function takingTurns(engine: Engine): Engine {
  let resident: { program: Program } | undefined;
  const release = async () => {
    const last = resident?.program;
    resident = undefined;
    await last?.dispose();
  };
  return {
    ...engine,
    compile: async (outputs, weights) => {
      const enter = async () => {
        await release();
        return (resident = { program: await engine.compile(outputs, weights) });
      };
      let own = await enter();
      return {
        run: async (feeds) => {
          if (resident !== own) own = await enter();
          return own.program.run(feeds);
        },
        dispose: async () => {
          if (resident === own) await release();
        },
      };
    },
  };
}
