"""A version of transformers whose attention projects elsewhere is refused: `refusal.py FOLDER`, of a Llama."""

import sys

import torch
import transformers


def forward(self, hidden_states, past_key_values=None, **kwargs):
    return self.projected(hidden_states, past_key_values, **kwargs)


transformers.LlamaAttention.projected = transformers.LlamaAttention.forward
transformers.LlamaAttention.forward = forward
model = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1], trust_remote_code=True)
try:
    model(torch.tensor([[1, 2]]))
except RuntimeError as error:
    print(error)
