// Chat templates of five families (and Qwen3, which changes earlier turns), written after what theirs do.

export interface Family {
  readonly template: string;
  readonly tokens: Readonly<Record<string, string>>;
  /** Special tokens of the vocabulary, beside those. */
  readonly added: readonly string[];
}

const header = "'<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'";

export const families = {
  chatml: {
    template: `{%- for message in messages %}
    {%- if loop.first and message.role != 'system' %}
        {{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}
    {%- endif %}
    {{- '<|im_start|>' + message.role }}
    {%- if message.content %}{{ '\\n' + message.content }}{% endif %}
    {%- if message.tool_calls %}{% for call in message.tool_calls %}
        {{- '\\n<tool_call>\\n' + call.function | tojson + '\\n</tool_call>' }}
    {%- endfor %}{% endif %}
    {{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}`,
    tokens: { eos_token: "<|im_end|>" },
    added: ["<|im_start|>"],
  },
  llama3: {
    template: `{% set loop_messages = messages %}{% for message in loop_messages %}
{%- set content = ${header} + message['content'] | trim + '<|eot_id|>' %}
{%- if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}
{%- endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}`,
    tokens: { bos_token: "<|begin_of_text|>", eos_token: "<|eot_id|>" },
    added: ["<|start_header_id|>", "<|end_header_id|>"],
  },
  mistral: {
    template: `{%- if messages[0].role == 'system' %}{% set told = messages[0].content %}{% set turns = messages[1:] %}
{%- else %}{% set turns = messages %}{% endif %}{{ bos_token }}
{%- set asked = turns | selectattr('role', 'equalto', 'user') | list %}
{%- for message in turns %}
{%- if (message.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}
{%- if message.role == 'user' %}
{%- if message == asked[-1] and told is defined %}{{ '[INST] ' + told + '\\n\\n' + message.content + '[/INST]' }}
{%- else %}{{ '[INST] ' + message.content + '[/INST]' }}{% endif %}
{%- else %}{{ ' ' + message.content + eos_token }}{% endif %}
{%- endfor %}`,
    tokens: { bos_token: "<s>", eos_token: "</s>" },
    added: ["[INST]", "[/INST]"],
  },
  gemma: {
    template: `{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}
{%- for message in messages %}
{%- set role = 'model' if message.role == 'assistant' else message.role %}
{{- '<start_of_turn>' + role + '\\n' + message.content | trim + '<end_of_turn>\\n' }}
{%- endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}`,
    tokens: { bos_token: "<bos>", eos_token: "<eos>" },
    added: ["<start_of_turn>", "<end_of_turn>"],
  },
  phi3: {
    template: `{% for message in messages %}{{ '<|' + message.role + '|>\\n' + message.content + '<|end|>\\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% else %}{{ eos_token }}{% endif %}`,
    tokens: { bos_token: "<s>", eos_token: "<|endoftext|>" },
    added: ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"],
  },
  qwen3: {
    template: `{%- set ns = namespace(last=0) %}
{%- for message in messages %}{% if message.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}
{%- for message in messages %}
    {%- if message.role == 'assistant' %}
        {%- set content = message.content %}{% set thought = '' %}
        {%- if '</think>' in content %}
            {%- set thought = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {{- '<|im_start|>assistant\\n' }}
        {%- if loop.index0 > ns.last and (loop.last or thought) %}
            {{- '<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' }}
        {%- endif %}
        {{- content + '<|im_end|>\\n' }}
    {%- else %}{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}`,
    tokens: { eos_token: "<|im_end|>" },
    added: ["<|im_start|>"],
  },
} satisfies Readonly<Record<string, Family>>;
