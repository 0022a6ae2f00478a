// What a row of each multiple-choice data set asks, in the prompts of the language-model evaluation harness: the pairs
// of context and continuation of which the likeliest is the answer, and which one is right. A new task is a row here.

import { isRecord, type JsonObject, shown } from "../../core/json.ts";
import { RowProblem } from "../../data/chat-answers.ts";
import { textField } from "../../data/readers/rows.ts";

export interface Question {
  /** A continuation is without the space before it. */
  readonly pairs: readonly (readonly [context: string, continuation: string])[];
  /** Which pair is right, from 0. */
  readonly gold: number;
}

export interface ChoiceRow {
  /** Where the data is on the hub, and the split that counts. */
  readonly data: `${string}@${string}`;
  /** The columns that `question` reads. */
  readonly needs: readonly string[];
  /** Whether the harness also compares likelihoods per character of the choices. */
  readonly isNormalized: boolean;
  question(row: JsonObject): Question;
}

const arc = (config: string): ChoiceRow => ({
  data: `allenai/ai2_arc:${config}@test`,
  needs: ["question", "choices", "answerKey"],
  isNormalized: true,
  question(row) {
    const choices = isRecord(row["choices"]) ? row["choices"] : {};
    const gold = textsField(choices, "label").indexOf(textField(row, "answerKey"));
    const context = `Question: ${textField(row, "question")}\nAnswer:`;
    return oneOf(context, textsField(choices, "text"), gold, "answerKey");
  },
});

export const choiceRows = {
  piqa: {
    data: "baber/piqa@validation",
    needs: ["goal", "sol1", "sol2", "label"],
    isNormalized: true,
    question(row) {
      const choices = [textField(row, "sol1"), textField(row, "sol2")];
      return oneOf(`Question: ${textField(row, "goal")}\nAnswer:`, choices, row["label"]);
    },
  },
  hellaswag: {
    data: "Rowan/hellaswag@validation",
    needs: ["activity_label", "ctx_a", "ctx_b", "endings", "label"],
    isNormalized: true,
    question(row) {
      const begun = `${textField(row, "activity_label")}: ${textField(row, "ctx_a")}`;
      const context = withoutMarks(`${begun} ${capitalized(textField(row, "ctx_b"))}`);
      return oneOf(context, textsField(row, "endings").map(withoutMarks), row["label"]);
    },
  },
  // The options are in the contexts, and what follows the blank is scored after each.
  winogrande: {
    data: "allenai/winogrande:winogrande_xl@validation",
    needs: ["sentence", "option1", "option2", "answer"],
    isNormalized: false,
    question(row) {
      const sentence = textField(row, "sentence");
      const blank = sentence.indexOf("_");
      if (blank < 0) throw new RowProblem('field "sentence" has no blank "_"');
      const continuation = sentence.slice(blank + 1).trim();
      const options = [textField(row, "option1"), textField(row, "option2")];
      const before = sentence.slice(0, blank);
      const pairs = options.map((option) => [before + option, continuation] as const);
      return question(pairs, row["answer"], "answer", 1);
    },
  },
  arc_easy: arc("ARC-Easy"),
  arc_challenge: arc("ARC-Challenge"),
  boolq: {
    data: "aps/super_glue:boolq@validation",
    needs: ["passage", "question", "label"],
    isNormalized: false,
    question(row) {
      const context = `${textField(row, "passage")}\nQuestion: ${textField(row, "question")}?\nAnswer:`;
      return oneOf(context, ["no", "yes"], row["label"]);
    },
  },
} satisfies Readonly<Record<string, ChoiceRow>>;

/** One context for all choices. */
function oneOf(context: string, choices: readonly string[], label: unknown, name?: string) {
  const pairs = choices.map((choice) => [context, choice] as const);
  return question(pairs, label, name);
}

/** With the right one by its label, which counts from `first`; splits whose answers are secret have −1 or nothing. */
function question(pairs: Question["pairs"], label: unknown, name = "label", first = 0): Question {
  const gold = label === "" ? -1 : Number(label) - first;
  const found = typeof label === "bigint" ? Number(label) : label;
  if (pairs[gold]) return { pairs, gold };
  const what = `field "${name}" names none of ${pairs.length} choices: ${shown(found, 40)}`;
  throw new RowProblem(what, { hint: "are the answers of this split public?" });
}

function textsField(row: JsonObject, name: string): readonly string[] {
  const list = row[name];
  if (Array.isArray(list) && list.every((item) => typeof item === "string")) return list;
  throw new RowProblem(`field "${name}" is ${shown(list, 40)}, expected a list of strings`);
}

/** The first character in upper case and, as Python's `capitalize` has it, the others in lower. */
const capitalized = (text: string) => text.slice(0, 1).toUpperCase() + text.slice(1).toLowerCase();

/** HellaSwag without what WikiHow's pages left in it: `[title]`, `[step]` and their like. */
const withoutMarks = (text: string) =>
  text
    .trim()
    .replaceAll(" [title]", ". ")
    .replaceAll(/\[.*?\]/g, "")
    .replaceAll("  ", " ");
