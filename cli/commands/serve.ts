// `ssa serve`: a page on which a browser of this machine fine-tunes by itself.

import { quantizeOptions } from "../../src/options/common.ts";
import { loadRecipe } from "../../src/options/load.ts";
import { recipeOptions, type RecipeKey } from "../../src/options/schema.ts";
import { maybe, shared, text, texts } from "../../src/options/values.ts";
import { serveHere } from "../../src/report/loopback.ts";
import { exportSite, siteOf } from "../../src/web/site.ts";
import { defineCommand } from "../command.ts";
import { places, print, recipeSources } from "../io.ts";

/** What is offered where nothing is asked for: all of it embedded, and done within a minute. */
const OFFERED = {
  path: "the page's own recipe",
  text: "{base: tiny-gpt2, data: moby-dick, steps: 50, context: 128, reportWindows: 64}",
};

/** What only the command line does, or nothing on the page. */
const ELSEWHERE: readonly RecipeKey[] = [
  ...(Object.keys(quantizeOptions) as (keyof typeof quantizeOptions)[]),
  ...(["out", "maxTokens", "tune", "init", "loraLearningRate", "baseLearningRate"] as const),
  ...(["tasks", "earlyStopping", "saveEvery", "keepLast", "tensorboard", "final"] as const),
  ...(["device", "deviceMemory", "threads", "precision", "maxMemory", "recompute"] as const),
];

export const command = defineCommand({
  options: {
    recipe: maybe(text("file"), "recipe file, or the name of a shipped one"),
    set: maybe(texts("path=value"), "set a nested key, e.g. temperatures.key.token=true"),
    export: maybe(text("folder"), "write the page as files for any web server, and serve nothing"),
    refresh: shared.refresh,
  },
  recipe: recipeOptions.filter(({ key }) => !ELSEWHERE.includes(key)),
  stops: "now",
  examples: `Examples:
  $ ssa serve
  $ ssa serve --base HuggingFaceTB/SmolLM2-135M --data notes.txt --steps 100
  $ ssa serve --export page`,
  async run({ export: folder, refresh, json, ...flags }, io, { typed, signal }) {
    const sources = await recipeSources(io, flags, typed);
    const recipe = loadRecipe({ ...sources, file: sources.file ?? OFFERED });
    const site = await siteOf(recipe, { ...places(io, refresh), signal });
    if (folder !== undefined) {
      await exportSite(site, folder);
      return print(io, json, { output: folder }, () => [folder]);
    }
    const find = (name: string) => Promise.resolve(site.get(name));
    const server = serveHere(find, (url) => print(io, json, { url }, () => [url]));
    await new Promise((resolve) => {
      signal.addEventListener("abort", resolve);
      server.on("close", resolve);
      server.on("error", resolve);
    });
    server.close();
    signal.throwIfAborted();
  },
});
