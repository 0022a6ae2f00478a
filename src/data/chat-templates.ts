// Chat templates for models that bring none, by name.

/** In Jinja; BOS stands for the token that the tokenizer itself puts in front of texts, where it does. */
const templates = {
  /** Of OpenAI and Qwen; best where <|im_start|> and <|im_end|> are tokens of the vocabulary. */
  chatml: `{{ BOS }}{% for message in messages %}
{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
{%- endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}`,

  /** Names before what they say, for any vocabulary; an answer ends with the model's own end of text. */
  plain: `{{ BOS }}{% for message in messages %}
{{- ('' if loop.first else '\\n\\n') + message.role | capitalize + ': ' + message.content }}
{%- if message.role == 'assistant' %}{{ eos_token }}{% endif %}
{%- endfor %}{% if add_generation_prompt %}{{ '\\n\\nAssistant:' }}{% endif %}`,

  /** Alpaca's (Taori et al., 2023): an instruction, with an input where there is one, and the response. */
  alpaca: `{{ BOS }}{% for message in messages %}
{%- if loop.first and message.role != 'system' %}
{{- 'Below is an instruction that describes a task' }}
{{- ', paired with an input that provides further context' if message.input }}
{{- '. Write a response that appropriately completes the request.\\n\\n' }}
{%- elif not loop.first %}{{ '\\n\\n' }}
{%- endif %}
{%- if message.role == 'user' %}
{{- '### Instruction:\\n' + (message.instruction or message.content) }}
{{- '\\n\\n### Input:\\n' + message.input if message.input }}
{%- elif message.role == 'assistant' %}{{ '### Response:\\n' + message.content + eos_token }}
{%- else %}{{ message.content }}
{%- endif %}
{%- endfor %}{% if add_generation_prompt %}{{ '\\n\\n### Response:\\n' }}{% endif %}`,
};

export const BUILT_IN_TEMPLATES = Object.keys(templates) as readonly string[];

/** The template of a name for a tokenizer that does or does not begin texts by itself. */
export function builtInTemplate(name: string, hasPrefix: boolean): string | undefined {
  const template = Object.hasOwn(templates, name) && templates[name as keyof typeof templates];
  return template ? template.replace("{{ BOS }}", hasPrefix ? "{{ bos_token }}" : "") : undefined;
}
