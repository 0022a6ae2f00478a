/*! With Observable Plot, Copyright 2020-2025 Observable, Inc., and D3, Copyright 2010-2026 Mike Bostock:
Permission to use, copy, modify, and/or distribute this software for any purpose with or without fee is hereby granted,
provided that the above copyright notice and this permission notice appear in all copies.
THE SOFTWARE IS PROVIDED "AS IS" AND THE AUTHOR DISCLAIMS ALL WARRANTIES WITH REGARD TO THIS SOFTWARE INCLUDING ALL
IMPLIED WARRANTIES OF MERCHANTABILITY AND FITNESS. IN NO EVENT SHALL THE AUTHOR BE LIABLE FOR ANY SPECIAL, DIRECT,
INDIRECT, OR CONSEQUENTIAL DAMAGES OR ANY DAMAGES WHATSOEVER RESULTING FROM LOSS OF USE, DATA OR PROFITS, WHETHER IN AN
ACTION OF CONTRACT, NEGLIGENCE OR OTHER TORTIOUS ACTION, ARISING OUT OF OR IN CONNECTION WITH THE USE OR PERFORMANCE OF
THIS SOFTWARE. */
// The page's own program, which runs in a browser: the data of its document, drawn.

import type { PageData } from "../data.ts";
import { armsPage } from "./arms.ts";
import { element } from "./dom.ts";
import { runPage } from "./run.ts";

type Shown = PageData & { readonly isLive: boolean };

const main = document.querySelector("#page")!;

function draw(data: PageData): void {
  document.title = `${data.name} - ssa report`;
  const nodes = data.kind === "run" ? runPage(data) : armsPage(data);
  const content = [element("h1", {}, data.name), ...nodes].filter((node) => node !== undefined);
  main.replaceChildren(...content);
}

async function drawAgain(): Promise<void> {
  const response = await fetch("data").catch(() => undefined);
  const ended = "No longer live. Once the run is finished, its folder has report.html.";
  if (!response?.ok) return main.prepend(element("p", { class: "large" }, ended));
  draw((await response.json()) as PageData);
  drawLater();
}

const drawLater = () => setTimeout(() => void drawAgain(), 2000);

const data = JSON.parse(document.querySelector("#data")!.textContent) as Shown;
draw(data);
if (data.isLive) drawLater();
