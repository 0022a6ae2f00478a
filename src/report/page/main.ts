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
