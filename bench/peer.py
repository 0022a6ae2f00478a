"""The same work in PyTorch: a step of AdamW on the temperatures of a random, frozen GPT-2 with PyTorch's own autograd.

A line on stdin runs one step; a line of JSON on stdout says how long it took. Debian: apt-get install python3-torch
"""

import json
import math
import resource
import sys
import time

import torch
import torch.nn.functional as F

layers, heads, hidden, vocabulary, batch, tokens, threads = map(int, sys.argv[1:8])
torch.set_num_threads(threads)
head_dim = hidden // heads


def frozen(*shape):
    return torch.randn(*shape) * 0.02


def trained(*shape):
    return torch.zeros(*shape, requires_grad=True)


class Layer:
    def __init__(self):
        self.norms = [(torch.ones(hidden), torch.zeros(hidden)) for _ in range(2)]
        self.attention = frozen(3 * hidden, hidden), frozen(3 * hidden)
        self.projection = frozen(hidden, hidden), frozen(hidden)
        self.up = frozen(4 * hidden, hidden), frozen(4 * hidden)
        self.down = frozen(hidden, 4 * hidden), frozen(hidden)
        self.query = trained(heads, 1, head_dim), trained(heads, 1, 1), trained(heads, 1, 1)
        self.value = trained(heads, 1, head_dim), trained(heads, 1, 1)

    def trainable(self):
        return [*self.query, *self.value]

    def forward(self, x):
        x = x + F.linear(self.attend(F.layer_norm(x, (hidden,), *self.norms[0])), *self.projection)
        inner = F.layer_norm(x, (hidden,), *self.norms[1])
        return x + F.linear(F.gelu(F.linear(inner, *self.up)), *self.down)

    def attend(self, x):
        split = F.linear(x, *self.attention).view(batch, tokens, 3, heads, head_dim)
        query, key, value = split.permute(2, 0, 3, 1, 4)
        weight, bias, position = self.query
        query = query * (1 + token_part(query, weight, bias) + torch.tanh(position) * log_n)
        value = value * (1 + token_part(value, *self.value))
        logits = query @ key.transpose(-2, -1) / math.sqrt(head_dim) + mask
        merged = (torch.softmax(logits, -1) @ value).transpose(1, 2)
        return merged.reshape(batch, tokens, hidden)


def token_part(z, weight, bias):
    return torch.tanh((F.gelu(z) * weight).sum(-1, keepdim=True) + bias)


mask = torch.full((tokens, tokens), -math.inf).triu(1)
log_n = torch.arange(1, tokens + 1).log().view(tokens, 1)
embedding, positions = frozen(vocabulary, hidden), frozen(tokens, hidden)
model = [Layer() for _ in range(layers)]
optimizer = torch.optim.AdamW([p for layer in model for p in layer.trainable()], lr=1e-3)
ids = torch.randint(vocabulary, (batch, tokens))


def step():
    x = F.embedding(ids, embedding) + positions
    for layer in model:
        x = layer.forward(x)
    logits = F.layer_norm(x, (hidden,)) @ embedding.T
    optimizer.zero_grad()
    F.cross_entropy(logits.view(-1, vocabulary), ids.view(-1)).backward()
    optimizer.step()


print(json.dumps({"peer": f"torch {torch.__version__}"}), flush=True)
for _ in sys.stdin:
    started = time.perf_counter()
    step()
    elapsed = 1e3 * (time.perf_counter() - started)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"ms": elapsed, "peakRssMb": peak}), flush=True)
