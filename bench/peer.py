"""The same work in PyTorch: a step of AdamW on the temperatures of a random, frozen GPT-2 with PyTorch's own autograd.

A line on stdin runs one step; a line of JSON on stdout says how long it took. Debian: apt-get install python3-torch
Behind the geometry: `cuda`, `bf16` (autocast), `sdpa` (scaled-dot-product attention), `compile`, in any order.
"""

import contextlib
import json
import math
import resource
import sys
import time

import torch
import torch.nn.functional as F

layers, heads, hidden, vocabulary, batch, tokens, threads = map(int, sys.argv[1:8])
options = sys.argv[8:]
device = "cuda" if "cuda" in options else "cpu"
if threads:
    torch.set_num_threads(threads)
if device != "cpu":  # PyTorch 1 lacks the function
    torch.set_default_device(device)
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
        if "sdpa" in options:
            query, value = query.to(key.dtype), value.to(key.dtype)
            mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        else:
            logits = query @ key.transpose(-2, -1) / math.sqrt(head_dim) + mask
            mixed = torch.softmax(logits, -1) @ value
        return mixed.transpose(1, 2).reshape(batch, tokens, hidden)


def token_part(z, weight, bias):
    return torch.tanh((F.gelu(z) * weight).sum(-1, keepdim=True) + bias)


mask = torch.full((tokens, tokens), -math.inf).triu(1)
log_n = torch.arange(1, tokens + 1).log().view(tokens, 1)
embedding, positions = frozen(vocabulary, hidden), frozen(tokens, hidden)
model = [Layer() for _ in range(layers)]
optimizer = torch.optim.AdamW([p for layer in model for p in layer.trainable()], lr=1e-3)
ids = torch.randint(vocabulary, (batch, tokens))


def loss_of(ids):
    x = F.embedding(ids, embedding) + positions
    for layer in model:
        x = layer.forward(x)
    logits = F.layer_norm(x, (hidden,)) @ embedding.T
    return F.cross_entropy(logits.view(-1, vocabulary).float(), ids.view(-1))


if "compile" in options:
    loss_of = torch.compile(loss_of)
half = torch.autocast(device, torch.bfloat16) if "bf16" in options else contextlib.nullcontext()


def step():
    optimizer.zero_grad()
    with half:
        loss = loss_of(ids)
    loss.backward()
    optimizer.step()
    return loss.item()


print(json.dumps({"peer": " ".join([f"torch {torch.__version__}", *options])}), flush=True)
for _ in sys.stdin:
    started = time.perf_counter()
    step()
    elapsed = 1e3 * (time.perf_counter() - started)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    card = torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else None
    print(json.dumps({"ms": elapsed, "peakRssMb": peak, "peakDeviceMb": card}), flush=True)
