"""The same work in PyTorch: a step of AdamW on the temperatures of a random, frozen GPT-2 or Llama with PyTorch's own
autograd. The geometry is a line of JSON.

A line on stdin runs one step; a line of JSON on stdout says how long it took. Debian: apt-get install python3-torch
libopenblas0-pthread. Behind the geometry: `cuda`, `bf16` (autocast), `sdpa` (scaled-dot-product attention), `compile`, in any order.
"""

import contextlib
import json
import math
import resource
import sys
import time

import torch
import torch.nn.functional as F

work = json.loads(sys.argv[1])
options = sys.argv[2:]
layers, heads, key_heads = work["numLayers"], work["numHeads"], work["numKeyValueHeads"]
hidden, head_dim, inner = work["hiddenSize"], work["headDim"], work["intermediateSize"]
vocabulary, batch, tokens, threads = (work[name] for name in ["vocabSize", "batchSize", "context", "threads"])
device = "cuda" if "cuda" in options else "cpu"
with contextlib.suppress(FileNotFoundError), open("/proc/self/maps") as maps:
    if "/blas/libblas" in maps.read():
        sys.exit("PyTorch multiplies with the reference BLAS here, many times slower: apt-get install libopenblas0-pthread")
if threads:
    torch.set_num_threads(threads)
if device != "cpu":  # PyTorch 1 lacks the function
    torch.set_default_device(device)


def frozen(*shape):
    return torch.randn(*shape) * 0.02


def trained(*shape):
    return torch.zeros(*shape, requires_grad=True)


class Layer:
    def __init__(self):
        self.query = trained(heads, 1, head_dim), trained(heads, 1, 1), trained(heads, 1, 1)
        self.value = trained(key_heads, 1, head_dim), trained(key_heads, 1, 1)

    def trainable(self):
        return [*self.query, *self.value]

    def forward(self, x):
        x = x + F.linear(self.attend(self.normed(x, 0)), *self.projection)
        return x + self.mlp(self.normed(x, 1))

    def attend(self, x):
        query, key, value = self.projected(x)
        weight, bias, position = self.query
        query = query * (1 + token_part(query, weight, bias) + torch.tanh(position) * log_n)
        value = value * (1 + token_part(value, *self.value))
        query, key = self.rotated(query), self.rotated(key)
        if heads > key_heads:
            key, value = (x.repeat_interleave(heads // key_heads, 1) for x in (key, value))
        if "sdpa" in options:
            query, value = query.to(key.dtype), value.to(key.dtype)
            mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        else:
            logits = query @ key.transpose(-2, -1) / math.sqrt(head_dim) + mask
            mixed = torch.softmax(logits, -1) @ value
        return mixed.transpose(1, 2).reshape(batch, tokens, heads * head_dim)


class Gpt2Layer(Layer):
    def __init__(self):
        super().__init__()
        self.norms = [(torch.ones(hidden), torch.zeros(hidden)) for _ in range(2)]
        self.attention = frozen(3 * hidden, hidden), frozen(3 * hidden)
        self.projection = frozen(hidden, hidden), frozen(hidden)
        self.up = frozen(inner, hidden), frozen(inner)
        self.down = frozen(hidden, inner), frozen(hidden)

    def normed(self, x, index):
        return F.layer_norm(x, (hidden,), *self.norms[index])

    def projected(self, x):
        split = F.linear(x, *self.attention).view(batch, tokens, 3, heads, head_dim)
        return split.permute(2, 0, 3, 1, 4)

    def rotated(self, z):
        return z

    def mlp(self, x):
        return F.linear(F.gelu(F.linear(x, *self.up)), *self.down)


class LlamaLayer(Layer):
    def __init__(self):
        super().__init__()
        self.norms = [torch.ones(hidden) for _ in range(2)]
        self.projections = [(frozen(n * head_dim, hidden), n) for n in (heads, key_heads, key_heads)]
        self.projection = (frozen(hidden, heads * head_dim),)
        self.gate, self.up, self.down = frozen(inner, hidden), frozen(inner, hidden), frozen(hidden, inner)

    def normed(self, x, index):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * self.norms[index]

    def projected(self, x):
        return [F.linear(x, weight).view(batch, tokens, n, head_dim).transpose(1, 2) for weight, n in self.projections]

    def rotated(self, z):
        low, high = z.chunk(2, -1)
        return z * cosines.to(z.dtype) + torch.cat([-high, low], -1) * sines.to(z.dtype)

    def mlp(self, x):
        return F.linear(F.silu(F.linear(x, self.gate)) * F.linear(x, self.up), self.down)


def token_part(z, weight, bias):
    return torch.tanh((F.gelu(z) * weight).sum(-1, keepdim=True) + bias)


mask = torch.full((tokens, tokens), -math.inf).triu(1)
log_n = torch.arange(1, tokens + 1).log().view(tokens, 1)
is_llama = bool(work["rotary"])  # of GPT-2 it is empty
angles = torch.outer(torch.arange(tokens), 500000 ** -(torch.arange(0, head_dim, 2) / head_dim)).repeat(1, 2)
cosines, sines = angles.cos(), angles.sin()
embedding = frozen(vocabulary, hidden)
positions = 0 if is_llama else frozen(tokens, hidden)
model = [LlamaLayer() if is_llama else Gpt2Layer() for _ in range(layers)]
optimizer = torch.optim.AdamW([p for layer in model for p in layer.trainable()], lr=1e-3)
ids = torch.randint(vocabulary, (batch, tokens))


def loss_of(ids):
    x = F.embedding(ids, embedding) + positions
    for layer in model:
        x = layer.forward(x)
    logits = model[-1].normed(x, 1) @ embedding.T
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
