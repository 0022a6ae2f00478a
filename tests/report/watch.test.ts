// A run that is watched: its page follows it, is there for who has the link, and never holds the run up.

import assert from "node:assert/strict";
import type { ChildProcess } from "node:child_process";
import { request } from "node:http";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout } from "node:timers/promises";
import { openBrowser, skipWithoutBrowser } from "../browser.ts";
import { ssa } from "../cli/program.ts";
import { temporaryFolder } from "../helpers.ts";
import { fixture, writeTokens } from "../run/small-run.ts";

const small = "--batch-size 1 --gradient-accumulation-steps 2 --max-added-share 0.5".split(" ");

function get(url: string, host?: string): Promise<number> {
  return new Promise((resolve, reject) => {
    const asked = request(url, { headers: host ? { host } : {} }, (response) => {
      resolve(response.resume().statusCode!);
    });
    asked.on("error", reject).end();
  });
}

test(
  "--watch serves the page of a run at work, to its link alone",
  { skip: skipWithoutBrowser },
  async (t) => {
    const folder = await temporaryFolder(t);
    const data = await writeTokens(join(folder, "data"));
    const { page, close } = await openBrowser({});
    t.after(close);
    const errors: string[] = [];
    page.on("pageerror", (error) => errors.push(String(error)));
    let seen: Promise<readonly [string, string]> | undefined;
    const look = async (url: string, child: ChildProcess) => {
      const { host, origin, pathname } = new URL(url);
      assert.match(url, /^http:\/\/127\.0\.0\.1:\d+\/[0-9a-f]{32}\/$/);
      assert.equal(await get(origin), 404);
      assert.equal(await get(`${origin}/${"0".repeat(32)}/`), 404);
      assert.equal(await get(`${url}../report.json`), 404);
      assert.equal(await get(url, "attacker.example"), 404);
      // Before the run has written its recipe there is nothing to show.
      while ((await get(url, host)) === 503) await setTimeout(50);
      assert.equal(await get(url, host), 200);
      assert.ok(pathname.length > 30);
      await page.goto(url);
      const words = () => page.locator("main").innerText();
      const step = async () => Number(/step (\d+) of/.exec(await words())?.[1]);
      const first = await step();
      await page.waitForFunction((first) => {
        const text = document.querySelector("main")!.textContent;
        return Number(/step (\d+) of/.exec(text)?.[1]) > first;
      }, first);
      const later = await words();
      child.kill("SIGINT");
      await page.getByText("No longer live").waitFor({ timeout: 60_000 });
      return [later, await words()] as const;
    };
    const args = [
      "--base",
      fixture(),
      "--data",
      data,
      "--out",
      join(folder, "run"),
      "--device",
      "cpu",
    ];
    const { code, stderr } = await ssa(
      ["finetune", ...args, ...small, "--threads", "1", "--steps", "100000", "--watch"],
      {
        onStderr: (text, child) => {
          const [url] = /http:\S+\/(?=\n)/.exec(text) ?? [];
          if (url) seen ??= look(url, child);
        },
      },
    );
    assert.equal(code, 130, stderr);
    const [later, ended] = await seen!;
    assert.match(later, /Not finished: trains temperatures/);
    assert.match(later, /Training/);
    assert.match(ended, /Once the run is finished, its folder has report\.html/);
    assert.deepEqual(errors, []);
  },
);
