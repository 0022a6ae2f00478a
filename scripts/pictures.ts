// The pictures of README.md and docs/, from the page of a run as the program writes it, light and dark:
//   ssa finetune --recipe demo --out RUN && npx tsx scripts/pictures.ts RUN docs/pictures

import { mkdir, stat } from "node:fs/promises";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { chromium } from "playwright-core";
import { UserError } from "../src/core/errors.ts";

/** From the top of the first section to the end of the last, by their headings. */
const pictures: Readonly<Record<string, readonly [from: string, to: string]>> = {
  run: ["Perplexity", "Training"],
  temperatures: ["Temperatures of the query", "Temperatures on text"],
};
const MARGIN = 16;
const MAX_BYTES = 150_000;

const [run, out] = process.argv.slice(2);
if (!run || !out) throw new UserError("usage: npx tsx scripts/pictures.ts RUN FOLDER");
await mkdir(out, { recursive: true });
const browser = await chromium.launch({
  executablePath: "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-dev-shm-usage"],
});
try {
  for (const colorScheme of ["light", "dark"] as const) {
    const page = await browser.newPage({ viewport: { width: 860, height: 800 }, colorScheme });
    await page.goto(pathToFileURL(resolve(run, "report.html")).href);
    for (const [name, ends] of Object.entries(pictures)) {
      const boxes = await Promise.all(
        ends.map((title) =>
          page
            .locator("section")
            .filter({ has: page.getByRole("heading", { name: title, exact: true }) })
            .boundingBox(),
        ),
      );
      const [first, last] = boxes;
      if (!first || !last) throw new UserError(`${run}: no section ${ends.join(" or ")}`);
      const path = join(out, `${name}-${colorScheme}.png`);
      const height = last.y + last.height - first.y + 2 * MARGIN;
      const clip = { x: 0, y: first.y - MARGIN, width: 860, height };
      await page.screenshot({ path, clip, fullPage: true });
      const { size } = await stat(path);
      if (size > MAX_BYTES) throw new UserError(`${path}: ${size} bytes, at most ${MAX_BYTES}`);
    }
  }
} finally {
  await browser.close();
}
