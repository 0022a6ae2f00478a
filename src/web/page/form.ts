// Fields of the page's forms.

import { element } from "../../report/page/dom.ts";
import type { Files } from "../folder.ts";

export const number = (value: number, min: number, step = "1") =>
  element("input", { type: "number", required: "", value: String(value), min: String(min), step });

export const choice = (options: readonly (readonly [value: string, text: string])[]) =>
  element("select", {}, ...options.map(([value, text]) => element("option", { value }, text)));

type Field = readonly [label: string, input: HTMLElement, className?: string];

export const fields = (...given: readonly Field[]) =>
  element(
    "form",
    {},
    ...given.map(([label, input, name = ""]) => element("label", { class: name }, label, input)),
  );

/** By name, of the chosen folder alone, not of those in it. */
export const filesOf = (list: FileList | null): Files =>
  new Map(
    Array.from(list ?? [])
      .filter(({ webkitRelativePath }) => webkitRelativePath.split("/").length <= 2)
      .map((file) => [file.name, file]),
  );
