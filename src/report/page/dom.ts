// Elements of the page. Text is only ever set as text: what a model, a file or a tokenizer wrote is never markup.

type Child = Node | string | null | undefined | false;

export function element<Name extends keyof HTMLElementTagNameMap>(
  name: Name,
  attributes: Readonly<Record<string, string>>,
  ...children: readonly Child[]
): HTMLElementTagNameMap[Name] {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  for (const child of children)
    if (child instanceof Node || typeof child === "string") made.append(child);
  return made;
}

/** A heading, what is under it, and how it is to be read. */
export const section = (title: string, how: string, ...content: readonly Child[]) =>
  element(
    "section",
    {},
    element("h2", {}, title),
    ...content,
    how && element("p", { class: "how" }, how),
  );

export const tile = (value: string, words: string, kind = "") =>
  element(
    "div",
    { class: "tile" },
    element("b", { class: kind }, value),
    element("span", {}, words),
  );

export interface Column {
  readonly title: string;
  readonly kind?: "number" | "text";
}

export function table(
  label: string,
  columns: readonly Column[],
  rows: readonly (readonly (Node | string)[])[],
): HTMLElement {
  const kindOf = (i: number) => ({ class: columns[i]?.kind ?? "" });
  const head = columns.map(({ title }, i) => element("th", { scope: "col", ...kindOf(i) }, title));
  const body = rows.map((row) =>
    element("tr", {}, ...row.map((cell, i) => element("td", kindOf(i), cell))),
  );
  const made = element(
    "table",
    {},
    element("thead", {}, element("tr", {}, ...head)),
    element("tbody", {}, ...body),
  );
  return element(
    "div",
    { class: "scroll", role: "region", tabindex: "0", "aria-label": label },
    made,
  );
}

/** Drawn at its width, and again when that changes. */
export function figure(label: string, draw: (width: number) => Element): HTMLElement {
  const canvas = element("div", { role: "img", "aria-label": label });
  let drawn = 0;
  new ResizeObserver(() => {
    const width = Math.floor(canvas.clientWidth);
    if (width === 0 || width === drawn) return;
    const plot = draw((drawn = width));
    // The whole is one picture with one name.
    for (const part of plot.querySelectorAll("[aria-label]")) part.removeAttribute("aria-label");
    canvas.replaceChildren(plot);
  }).observe(canvas);
  return element("figure", {}, element("figcaption", {}, label), canvas);
}

export const legend = (...entries: readonly (readonly [color: string, words: string])[]) =>
  element(
    "div",
    { class: "legend" },
    ...entries.map(([color, words]) => {
      const swatch = element("span", { class: "swatch" });
      swatch.style.background = color;
      return element("span", {}, swatch, words);
    }),
  );

/** Line ends as a sign, so that a cell stays a line. */
export const visible = (text: string) => text.replaceAll("\n", "⏎");
