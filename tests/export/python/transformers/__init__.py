"""A stand-in for the part of `transformers` that src/export/modeling_ssa.py names, for machines without it.

Modules, attributes, keyword arguments and layouts are those of transformers 5.17; what they compute is written on
tests/fixtures/reference.py and later_reference.py, with a cache and a mask. tests/gpu/transformers.py runs the real one.
"""

import importlib.util
import json
import os
import sys
from types import SimpleNamespace

import torch
from torch import nn

sys.path.append(os.path.join(os.path.dirname(__file__), "..", "..", "..", "fixtures"))
from reference import ACTIVATIONS  # noqa: E402
from rotary import rotate, scaled_tables  # noqa: E402

from .tensors import read_tensors  # noqa: E402


class DynamicCache:
    """Keys and values of every layer."""

    def __init__(self):
        self.layers = {}

    def get_seq_length(self, layer=0):
        return self.layers[layer][0].shape[2] if layer in self.layers else 0

    def update(self, key, value, layer):
        past = self.layers.get(layer)
        joined = (key, value) if past is None else [torch.cat(pair, dim=2) for pair in zip(past, (key, value))]
        self.layers[layer] = joined
        return joined


class Conv1D(nn.Module):
    """Keeps its weight as [in, out]."""

    def __init__(self, out, into):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.empty(into, out)), nn.Parameter(torch.empty(out))

    def forward(self, x):
        return x @ self.weight + self.bias


class RMSNorm(nn.Module):
    def __init__(self, size, eps, one=0.0):
        super().__init__()
        self.weight, self.eps, self.one = nn.Parameter(torch.empty(size)), eps, one

    def forward(self, x):
        return (self.one + self.weight) * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps)


# --- attention, as the families write it ---


class Attention(nn.Module):
    def __init__(self, config, layer_idx):
        super().__init__()
        self.config, self.layer_idx = config, layer_idx
        self.head_dim, self.num_heads, self.num_kv_heads = config.head_size, config.heads, config.kv_heads
        row, width = config.row, config.width
        wide, narrow = self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim
        fused = {"c_attn": Conv1D(wide + 2 * narrow, width)} if config.model_type == "gpt2" else {}
        bias = config.attention_bias
        for name in row.projections if not fused else ():
            out = {"q_proj": wide, "k_proj": narrow, "v_proj": narrow}.get(name, wide + 2 * narrow)
            fused[name] = nn.Linear(width, out, bias=bias)
        for name, module in fused.items():
            self.add_module(name, module)
        if row.qk_norm:
            sizes = (self.head_dim,) * 2 if row.qk_norm == "head" else (wide, narrow)
            self.q_norm, self.k_norm = (RMSNorm(size, config.epsilon, row.one) for size in sizes)
        out = Conv1D(width, wide) if row.linear is Conv1D else nn.Linear(wide, width, bias=config.output_bias)
        self.add_module(row.out, out)

    def attend(self, query, key, value, kwargs, cache):
        """[B, N, T, H], before the rotary embedding, to [B, T, D]."""
        turn = kwargs["position_embeddings"]
        if turn is not None:
            query, key = rotate(query, turn), rotate(key, turn)
        if cache is not None:
            key, value = cache.update(key, value, self.layer_idx)
        key, value = (z.repeat_interleave(self.num_heads // self.num_kv_heads, dim=1) for z in (key, value))
        scores = query @ key.transpose(-1, -2) * self.config.scale
        cap = self.config.cap
        scores = scores if cap is None else cap * torch.tanh(scores / cap)
        scores = scores.masked_fill(~kwargs["attention_mask"], torch.finfo(scores.dtype).min)
        context = (scores.softmax(dim=-1) @ value).transpose(1, 2).flatten(2)
        return getattr(self, self.config.row.out)(context), None


class GPT2Attention(Attention):
    def forward(self, hidden_states, past_key_values=None, **kwargs):
        query, key, value = self.c_attn(hidden_states).split(self.num_heads * self.head_dim, dim=2)
        shape = (*key.shape[:-1], -1, self.head_dim)
        query, key, value = (z.view(shape).transpose(1, 2) for z in (query, key, value))
        return self.attend(query, key, value, kwargs, past_key_values)


class GPTNeoXAttention(Attention):
    def forward(self, hidden_states, layer_past=None, **kwargs):
        shape = (*hidden_states.shape[:-1], -1, 3 * self.head_dim)
        query, key, value = self.query_key_value(hidden_states).view(shape).transpose(1, 2).chunk(3, dim=-1)
        return self.attend(query, key, value, kwargs, layer_past)


class GPTNeoSelfAttention(Attention):
    """Is told no positions, only the cache."""

    def forward(self, hidden_states, attention_mask=None, layer_past=None, position_embeddings=None):
        shape = (*hidden_states.shape[:-1], self.num_heads, self.head_dim)
        projected = self.q_proj(hidden_states), self.k_proj(hidden_states), self.v_proj(hidden_states)
        query, key, value = (z.view(shape).permute(0, 2, 1, 3) for z in projected)
        kwargs = {"attention_mask": attention_mask, "position_embeddings": position_embeddings}
        return self.attend(query, key, value, kwargs, layer_past)


class GPTNeoAttention(nn.Module):
    def __init__(self, config, layer_idx):
        super().__init__()
        self.attention = GPTNeoSelfAttention(config, layer_idx)

    def forward(self, hidden_states, layer_past=None, **kwargs):
        del kwargs["position_ids"]
        return self.attention(hidden_states, layer_past=layer_past, **kwargs)


class LlamaAttention(Attention):
    """And of OPT, Mistral, Qwen2, SmolLM3, Granite, Gemma 2 and StarCoder2."""

    def forward(self, hidden_states, past_key_values=None, **kwargs):
        shape = (*hidden_states.shape[:-1], -1, self.head_dim)
        query = self.q_proj(hidden_states).view(shape).transpose(1, 2)
        key = self.k_proj(hidden_states).view(shape).transpose(1, 2)
        value = self.v_proj(hidden_states).view(shape).transpose(1, 2)
        return self.attend(query, key, value, kwargs, past_key_values)


class Qwen3Attention(Attention):
    def forward(self, hidden_states, past_key_values=None, **kwargs):
        shape = (*hidden_states.shape[:-1], -1, self.head_dim)
        query = self.q_norm(self.q_proj(hidden_states).view(shape)).transpose(1, 2)
        key = self.k_norm(self.k_proj(hidden_states).view(shape)).transpose(1, 2)
        value = self.v_proj(hidden_states).view(shape).transpose(1, 2)
        return self.attend(query, key, value, kwargs, past_key_values)


class Gemma3Attention(Attention):
    """Its norms see the heads before the tokens."""

    def forward(self, hidden_states, past_key_values=None, **kwargs):
        shape = (*hidden_states.shape[:-1], -1, self.head_dim)
        query = self.q_proj(hidden_states).view(shape).transpose(1, 2)
        key = self.k_proj(hidden_states).view(shape).transpose(1, 2)
        value = self.v_proj(hidden_states).view(shape).transpose(1, 2)
        return self.attend(self.q_norm(query), self.k_norm(key), value, kwargs, past_key_values)


class Olmo2Attention(Attention):
    def forward(self, hidden_states, past_key_values=None, **kwargs):
        shape = (*hidden_states.shape[:-1], -1, self.head_dim)
        query = self.q_norm(self.q_proj(hidden_states)).view(shape).transpose(1, 2)
        key = self.k_norm(self.k_proj(hidden_states)).view(shape).transpose(1, 2)
        value = self.v_proj(hidden_states).view(shape).transpose(1, 2)
        return self.attend(query, key, value, kwargs, past_key_values)


class Phi3Attention(Attention):
    def forward(self, hidden_states, past_key_values=None, **kwargs):
        shape, qkv = (*hidden_states.shape[:-1], -1, self.head_dim), self.qkv_proj(hidden_states)
        first, second = self.num_heads * self.head_dim, (self.num_heads + self.num_kv_heads) * self.head_dim
        query, key, value = qkv[..., :first], qkv[..., first:second], qkv[..., second:]
        query, key, value = (z.view(shape).transpose(1, 2) for z in (query, key, value))
        return self.attend(query, key, value, kwargs, past_key_values)


# --- the rest of each family ---


def row(attention, causal, inner, **given):
    """What differs from Llama."""
    usual = {
        "attention": attention, "causal": causal, "inner": inner, "prefix": "model", "layers": "layers",
        "embed": "embed_tokens", "positions": None, "head": "lm_head", "at": "self_attn", "out": "o_proj",
        "projections": ("q_proj", "k_proj", "v_proj"), "qk_norm": None, "cache": "past_key_values",
        "norms": ("input_layernorm", None, "post_attention_layernorm", None), "final": "norm", "one": 0.0,
        "mlp": ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"), "linear": nn.Linear, "layer_norm": False,
    }
    return SimpleNamespace(**{**usual, **given})


GEMMA = {
    "norms": ("input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm"),
    "one": 1.0,
}
ROWS = {
    "gpt2": row(
        GPT2Attention, "GPT2LMHeadModel", "GPT2Model", prefix="transformer", layers="h", embed="wte", positions="wpe",
        at="attn", out="c_proj", projections=("c_attn",), norms=("ln_1", None, "ln_2", None), final="ln_f",
        mlp=(None, "mlp.c_fc", "mlp.c_proj"), linear=Conv1D, layer_norm=True,
    ),
    "gpt_neox": row(
        GPTNeoXAttention, "GPTNeoXForCausalLM", "GPTNeoXModel", prefix="gpt_neox", embed="embed_in", head="embed_out",
        at="attention", out="dense", projections=("query_key_value",), final="final_layer_norm",
        mlp=(None, "mlp.dense_h_to_4h", "mlp.dense_4h_to_h"), layer_norm=True, cache="layer_past",
    ),
    "gpt_neo": row(
        GPTNeoAttention, "GPTNeoForCausalLM", "GPTNeoModel", prefix="transformer", layers="h", embed="wte",
        positions="wpe", at="attn", out="out_proj", norms=("ln_1", None, "ln_2", None), final="ln_f",
        mlp=(None, "mlp.c_fc", "mlp.c_proj"), layer_norm=True, cache="layer_past",
    ),
    "opt": row(
        LlamaAttention, "OPTForCausalLM", "OPTModel", layers="decoder.layers", embed="decoder.embed_tokens",
        positions="decoder.embed_positions", out="out_proj", final="decoder.final_layer_norm",
        norms=("self_attn_layer_norm", None, "final_layer_norm", None), mlp=(None, "fc1", "fc2"), layer_norm=True,
    ),
    "llama": row(LlamaAttention, "LlamaForCausalLM", "LlamaModel"),
    "mistral": row(LlamaAttention, "MistralForCausalLM", "MistralModel"),
    "qwen2": row(LlamaAttention, "Qwen2ForCausalLM", "Qwen2Model"),
    "qwen3": row(Qwen3Attention, "Qwen3ForCausalLM", "Qwen3Model", qk_norm="head"),
    "smollm3": row(LlamaAttention, "SmolLM3ForCausalLM", "SmolLM3Model"),
    "phi3": row(
        Phi3Attention, "Phi3ForCausalLM", "Phi3Model", projections=("qkv_proj",),
        mlp=("mlp.gate_up_proj", "mlp.gate_up_proj", "mlp.down_proj"),
    ),
    "granite": row(LlamaAttention, "GraniteForCausalLM", "GraniteModel"),
    "olmo2": row(
        Olmo2Attention, "Olmo2ForCausalLM", "Olmo2Model", qk_norm="all",
        norms=(None, "post_attention_layernorm", None, "post_feedforward_layernorm"),
    ),
    "gemma2": row(LlamaAttention, "Gemma2ForCausalLM", "Gemma2Model", **GEMMA),
    "gemma3_text": row(Gemma3Attention, "Gemma3ForCausalLM", "Gemma3TextModel", qk_norm="head", **GEMMA),
    "starcoder2": row(
        LlamaAttention, "Starcoder2ForCausalLM", "Starcoder2Model", layer_norm=True,
        mlp=(None, "mlp.c_fc", "mlp.c_proj"),
    ),
}


class Config:
    """config.json, with the same names for all families beside it."""

    def __init__(self, json):
        self.__dict__.update(json)
        get, kind = json.get, json["model_type"]
        self.json, self.row = json, ROWS[kind]
        self.width = get("n_embd") or json["hidden_size"]
        self.num_layers = get("n_layer") or get("num_layers") or json["num_hidden_layers"]
        self.heads = get("n_head") or get("num_heads") or json["num_attention_heads"]
        self.kv_heads = get("num_key_value_heads", self.heads)
        self.head_size = get("head_dim") or self.width // self.heads
        epsilons = ("layer_norm_epsilon", "norm_epsilon", "layer_norm_eps", "rms_norm_eps")
        self.epsilon = next((json[name] for name in epsilons if name in json), 1e-5)
        names = ("hidden_activation", "activation_function", "hidden_act")
        self.activation = next(json[name] for name in names if get(name))
        if kind == "starcoder2":
            self.activation = json["hidden_act"]
        self.positions_first = 2 if kind == "opt" else 0
        self.num_positions = get("n_positions") or get("max_position_embeddings")
        by_default = {"gpt2": True, "gpt_neo": True, "opt": True, "smollm3": True, "starcoder2": True}
        by_default |= {"gemma2": True, "gemma3_text": True}
        self.is_tied = get("tie_word_embeddings", by_default.get(kind, False))
        usual = kind in ("gpt2", "opt", "gpt_neox", "qwen2")
        self.attention_bias = get("use_bias", get("attention_bias", usual))
        self.output_bias = get("use_bias", get("attention_bias", kind in ("gpt2", "opt", "gpt_neox", "gpt_neo")))
        self.mlp_bias = get("use_bias", get("mlp_bias", kind in ("gpt2", "opt", "gpt_neox", "gpt_neo")))
        self.scale = self.head_size**-0.5
        if kind in ("gemma2", "gemma3_text"):
            self.scale = json["query_pre_attn_scalar"] ** -0.5
        if kind in ("granite", "gpt_neo"):
            self.scale = get("attention_multiplier", 1.0)
        self.cap, self.logit_cap = get("attn_logit_softcapping"), get("final_logit_softcapping")

    def window(self, layer):
        get, kind, size = self.json.get, self.model_type, self.json.get("sliding_window")
        if kind == "gpt_neo":
            kinds = [one for names, times in self.attention_types for one in names * times]
            return self.window_size if kinds[layer] == "local" else None
        if kind in ("qwen2", "qwen3", "smollm3"):
            return size if get("use_sliding_window") and layer >= get("max_window_layers") else None
        if kind == "gemma2":
            return size if layer % 2 == 0 else None
        if kind == "gemma3_text":
            return size if (layer + 1) % self.sliding_window_pattern else None
        return size if kind in ("mistral", "phi3", "starcoder2") else None

    def tables(self, layer, length):
        """Cosines and sines of one layer; None where nothing turns."""
        kind, config = self.model_type, self.json
        if self.row.positions or (kind == "smollm3" and config["no_rope_layers"][layer] == 0):
            return None
        if kind == "gpt_neox":
            config = {"rope_theta": config["rotary_emb_base"], "partial_rotary_factor": config["rotary_pct"]}
        if kind == "gemma3_text" and self.window(layer):
            config = {"rope_theta": config["rope_local_base_freq"]}
        return scaled_tables(config, int(self.head_size * config.get("partial_rotary_factor", 1.0)), length)


class Layer(nn.Module):
    def __init__(self, config, layer):
        super().__init__()
        self.config, self.layer, row = config, layer, config.row
        self.add_module(row.at, row.attention(config, layer))
        for name in row.norms:
            if name is not None:
                self.add_module(name, norm_of(config))
        gate, up, down = row.mlp
        inner = config.json.get("n_inner") or config.json.get("intermediate_size") or config.json.get("ffn_dim")
        inner = inner or 4 * config.width
        if row.linear is Conv1D:
            linear = lambda into, out: Conv1D(out, into)  # noqa: E731
        else:
            linear = lambda into, out: nn.Linear(into, out, bias=config.mlp_bias)  # noqa: E731
        put(self, up, linear(config.width, 2 * inner if gate == up else inner))
        if gate not in (up, None):
            put(self, gate, linear(config.width, inner))
        put(self, down, linear(inner, config.width))

    def forward(self, x, cache, **kwargs):
        row, residual = self.config.row, self.config.json.get("residual_multiplier", 1.0)
        before, after, before_mlp, after_mlp = row.norms

        def normed(name, y):
            return y if name is None else getattr(self, name)(y)

        attention = getattr(self, row.at)
        given = normed(before, x)
        # Positional in some families, by name in others.
        if row.attention in (GPT2Attention, GPTNeoXAttention, GPTNeoAttention):
            y, _ = attention(given, **{row.cache: cache}, **kwargs)
        else:
            y, _ = attention(hidden_states=given, **{row.cache: cache}, **kwargs)
        attended = x + residual * normed(after, y)
        source = x if self.config.json.get("use_parallel_residual") else attended
        return attended + residual * normed(after_mlp, self.feed_forward(normed(before_mlp, source)))

    def feed_forward(self, x):
        act, (gate, up, down) = {**ACTIVATIONS, "relu": torch.relu}[self.config.activation], self.config.row.mlp
        y = self.get_submodule(up)(x)
        if gate == up:
            first, second = y.chunk(2, dim=-1)
            y = act(first) * second
        else:
            y = act(y) if gate is None else act(self.get_submodule(gate)(x)) * y
        return self.get_submodule(down)(y)


def norm_of(config):
    if config.row.layer_norm:
        return nn.LayerNorm(config.width, eps=config.epsilon)
    return RMSNorm(config.width, config.epsilon, config.row.one)


def put(parent, path, module):
    *outer, last = path.split(".")
    for name in outer:
        if name not in parent._modules:
            parent.add_module(name, nn.Module())
        parent = parent._modules[name]
    parent.add_module(last, module)


class PreTrainedModel(nn.Module):
    _keep_in_fp32_modules_strict = None

    def __init__(self, config):
        super().__init__()
        self.config = config

    @classmethod
    def from_pretrained(cls, folder, config, dtype=torch.float32):
        model = cls(config)
        kept = cls._keep_in_fp32_modules_strict or ()
        for name, parameter in model.named_parameters():
            if not any(part in kept for part in name.split(".")):
                parameter.data = parameter.data.to(dtype)
        stored = {name: tensor for name, tensor in read_tensors(f"{folder}/model.safetensors").items()}
        if isinstance(model, Inner):
            start = f"{config.row.prefix}."
            stored = {name[len(start) :]: t for name, t in stored.items() if name.startswith(start)}
        found = model.load_state_dict(stored, strict=False)
        missing = [name for name in found.missing_keys if not (config.is_tied and name == f"{config.row.head}.weight")]
        buffers = (".attn.bias", ".masked_bias", ".attention.bias", ".inv_freq")
        unexpected = [name for name in found.unexpected_keys if not name.endswith(buffers)]
        if missing or unexpected:
            raise ValueError(f"missing {missing}, unexpected {unexpected}")
        return model.eval()


class Inner(PreTrainedModel):
    """Up to the last norm."""

    def __init__(self, config):
        super().__init__(config)
        row = config.row
        put(self, row.embed, nn.Embedding(config.vocab_size, config.width))
        if row.positions:
            put(self, row.positions, nn.Embedding(config.num_positions + config.positions_first, config.width))
        put(self, row.layers, nn.ModuleList([Layer(config, i) for i in range(config.num_layers)]))
        put(self, row.final, norm_of(config))

    def forward(self, input_ids, attention_mask=None, position_ids=None, past_key_values=None):
        config, cache = self.config, past_key_values
        past = cache.get_seq_length() if cache is not None else 0
        (batch, length), row = input_ids.shape, config.row
        seen = torch.ones(batch, past + length, dtype=torch.long) if attention_mask is None else attention_mask
        if config.model_type == "opt":  # counts what is no padding, which itself is at -1
            position_ids = (seen.cumsum(dim=1) * seen - 1)[:, past:]
        if position_ids is None:
            position_ids = torch.arange(past, past + length)[None]
        x = self.get_submodule(row.embed)(input_ids) * config.json.get("embedding_multiplier", 1.0)
        if row.one:
            x = x * config.width**0.5
        if row.positions:
            x = x + self.get_submodule(row.positions)(position_ids + config.positions_first)
        distance = torch.arange(past, past + length)[:, None] - torch.arange(past + length)
        for i, layer in enumerate(self.get_submodule(row.layers)):
            window = config.window(i) or past + length
            visible = (distance >= 0) & (distance < window) & seen[:, None, None, :].bool()
            tables = config.tables(i, past + length)
            turn = tables and [table.float()[position_ids.clamp(min=0)][:, None] for table in tables]
            x = layer(x, cache, attention_mask=visible, position_ids=position_ids, position_embeddings=turn)
        return SimpleNamespace(last_hidden_state=self.get_submodule(row.final)(x))


class Causal(PreTrainedModel):
    def __init__(self, config):
        super().__init__(config)
        self.add_module(config.row.prefix, globals()[config.row.inner](config))
        self.add_module(config.row.head, nn.Linear(config.width, config.vocab_size, bias=False))
        if config.is_tied:
            self.tie()

    def tie(self):
        inner, row = getattr(self, self.config.row.prefix), self.config.row
        getattr(self, row.head).weight = inner.get_submodule(row.embed).weight

    def forward(self, input_ids, **kwargs):
        config = self.config
        x = getattr(self, config.row.prefix)(input_ids, **kwargs).last_hidden_state
        logits = getattr(self, config.row.head)(x) / config.json.get("logits_scaling", 1.0)
        cap = config.logit_cap
        return SimpleNamespace(logits=cap * torch.tanh(logits / cap) if cap else logits)


for _row in ROWS.values():
    globals()[_row.causal] = type(_row.causal, (Causal,), {"__module__": __name__})
    globals()[_row.inner] = type(_row.inner, (Inner,), {"__module__": __name__})


class AutoModel:
    @classmethod
    def from_pretrained(cls, folder, trust_remote_code=False, **given):
        with open(f"{folder}/config.json") as file:
            config = Config(json.load(file))
        if not trust_remote_code:
            return globals()[config.row.causal].from_pretrained(folder, config, **given)
        module, name = config.auto_map[cls.__name__].split(".")
        spec = importlib.util.spec_from_file_location(f"transformers_modules.{module}", f"{folder}/{module}.py")
        loaded = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = loaded
        spec.loader.exec_module(loaded)
        return getattr(loaded, name).from_pretrained(folder, config, **given)


class AutoModelForCausalLM(AutoModel):
    pass
