// Elements of the page. Text is only ever set as text: what a model, a file or a tokenizer wrote is never markup.

type Child = Node | string | false | null | undefined;

export function element<Name extends keyof HTMLElementTagNameMap>(
  name: Name,
  attributes: Readonly<Record<string, string>> = {},
  ...children: readonly Child[]
) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children.filter((child): child is Node | string => Boolean(child)));
  return made;
}

/** A heading, what is under it, and how it is to be read. */
export const section = (title: string, how: string, ...content: readonly Child[]) =>
  element("section", {}, element("h2", {}, title), ...content, element("p", { class: "how" }, how));

export const number = (value: number, min: number, step = "1") =>
  element("input", { type: "number", required: "", value: String(value), min: String(min), step });

type Field = readonly [label: string, input: HTMLElement, className?: string];

export function form(fields: readonly Field[], ...buttons: readonly HTMLElement[]) {
  const label = ([text, input, name = ""]: Field) => element("label", { class: name }, text, input);
  return element("form", {}, ...fields.map(label), ...buttons);
}

export const choice = (values: readonly (string | number)[], words = (value: string) => value) => {
  const options = [...new Set(values.map(String))];
  const elements = options.map((value) => element("option", { value }, words(value)));
  return element("select", {}, ...elements);
};

type Cell = Node | string;
const textOf = (cell: Cell) => (typeof cell === "string" ? cell : cell.textContent!);

/** Columns of numbers are set to the right. */
export function table(label: string, head: readonly string[], rows: readonly (readonly Cell[])[]) {
  const kinds = head.map((_, i) => {
    const isNumber = rows.every((row) => /^([-+<]?\d|$)/.test(textOf(row[i]!)));
    return { class: isNumber ? "number" : "" };
  });
  const line = (name: "td" | "th", cells: readonly Cell[]) =>
    element("tr", {}, ...cells.map((cell, i) => element(name, kinds[i], cell)));
  const body = element("tbody", {}, ...rows.map((row) => line("td", row)));
  const made = element("table", {}, element("thead", {}, line("th", head)), body);
  const place = { class: "scroll", role: "region", tabindex: "0", "aria-label": label };
  return element("div", place, made);
}

/** Drawn at its width, and again when that changes. */
export function figure(label: string, draw: (width: number) => Element) {
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
