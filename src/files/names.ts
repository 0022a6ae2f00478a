// The names of files that data, models, adapters and runs are made of, Hugging Face's and ours.

const splitWords = {
  train: /(?<![a-z])(train|training)(?![a-z])/i,
  validation: /(?<![a-z])(validation|valid|val|dev)(?![a-z])/i,
  test: /(?<![a-z])(test|testing|eval|evaluation)(?![a-z])/i,
};

/** The split that a name of data tells by the hub's habits, with a whole word: "wiki.valid.raw", "train-00000-of-00002". */
export const splitOf = (name: string): string | undefined =>
  Object.entries(splitWords).find(([, word]) => word.test(name))?.[0];

/** What the name of a split means: "valid" is validation, but "train_sft" is a split of its own. */
export const splitNamed = (name: string) => (/^[a-z]+$/i.test(name) && splitOf(name)) || name;

export const modelFiles = {
  config: "config.json",
  weights: "model.safetensors",
  index: "model.safetensors.index.json",
  tokenizer: "tokenizer.json",
  tokenizerConfig: "tokenizer_config.json",
  generationConfig: "generation_config.json",
  chatTemplate: "chat_template.jinja",
  card: "README.md",
} as const;

/** Beside the weights of a model with temperatures, or without them as an adapter; and PEFT's of LoRA. */
export const adapterFiles = {
  temperatures: { config: "ssa_config.json", weights: "ssa_adapter.safetensors" },
  lora: { config: "adapter_config.json", weights: "adapter_model.safetensors" },
} as const;

export const runFiles = {
  recipe: "recipe.yaml",
  metrics: "metrics.jsonl",
  /** By the base as it was, where it is quantised. */
  original: "original.json",
  before: "before.json",
  inserted: "inserted.json",
  after: "after.json",
  /** What the base answered. */
  tasks: "tasks.json",
  /** What `auto` became. */
  chosen: "chosen.json",
  report: "report.json",
  /** What the page shows besides. */
  details: "details.json",
  page: "report.html",
  tensorboard: "tensorboard",
  /** Of a comparison, above its runs. */
  comparison: "comparison.json",
  final: "final",
} as const;

/** In a snapshot's folder; `trained` holds what trains of the base. */
export const snapshotFiles = {
  adapter: adapterFiles.temperatures.weights,
  adapterConfig: adapterFiles.temperatures.config,
  lora: adapterFiles.lora.weights,
  loraConfig: adapterFiles.lora.config,
  trained: "trained.safetensors",
  optimizer: "optimizer.safetensors",
  state: "state.json",
} as const;
