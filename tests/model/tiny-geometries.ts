// Small models of two families, for random weights: a GPT-2, and a Llama whose heads share keys and values.

export const gpt2 = { model_type: "gpt2", n_layer: 2, n_head: 2, n_embd: 64, n_positions: 64 };
export const llama = {
  model_type: "llama",
  num_hidden_layers: 2,
  hidden_size: 64,
  intermediate_size: 160,
  num_attention_heads: 4,
  num_key_value_heads: 2,
};
