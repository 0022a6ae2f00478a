"""Temperatures of Selective Self-Attention (Zhang et al., NeurIPS 2024, arXiv 2411.12892) in a model of `transformers`.

Written by `ssa convert --to transformers`. The text is the same for every model; what differs is `ssa` in config.json.
The head z of a query, key or value of the token at position n, whose query sees m keys, becomes tau * z where it is
projected (after a norm of it), so before the rotary embedding and before it enters a cache:

    tau = (1 + tanh(<w, phi(z)> + b) + p(a) ln n + tanh(c)) * (s ln m) * (s ln m + b) * ln m / ln M * (0.1 ln S + 1)^2

with the terms and factors that are on. For transformers 5 (written after 5.17). What of it this file relies on:

- `transformers.X` is a class of models for every `modeling_ssa.SsaX` in config.json's `auto_map`, and what is listed in
  `_keep_in_fp32_modules_strict` stays in F32;
- below it, or below its attribute `ssa.prefix`, are the attention modules by the path `ssa.attention`;
- the `forward` of these has the hidden states first, or by that name, and calls each module of `ssa.places` as an
  attribute of itself, whose result is laid out [batch, tokens, heads of all that it projects], or head by head;
- it is given `position_ids` or `cache_position`, or else its cache (`past_key_values`, or `layer_past`) knows by
  `get_seq_length(layer)` what came before.

Shapes: B sequences, T tokens, N heads of a projection, H head dim, D hidden size.
"""

import math

import torch
import transformers
from torch import nn

FEATURES = {
    "gelu": lambda z: nn.functional.gelu(z, approximate="tanh"),
    "linear": lambda z: z,
    "tanh": torch.tanh,
}
SLOPES = {
    "tanh": torch.tanh,
    "linear": lambda a: a,
    "sigmoid": torch.sigmoid,
    "exp-exp": lambda a: torch.exp(-torch.exp(a)),
}
# The parameters of each part, by the last word of their names, and what they start from in a model without weights.
PARAMETERS = {
    "token": {"weight": 0.0, "bias": 0.0},
    "position": {"position": 0.0},
    "constant": {"constant": 0.0},
    "ssmax": {"ssmax": None},  # what stands in place of true
    "ssmaxBias": {"ssmax_scale": 0.0, "ssmax_bias": 1.0},
}


class Temperature(nn.Module):
    """Scales the heads of one projection, in F32."""

    def __init__(self, forms, parts, heads, head_dim, hidden_size):
        super().__init__()
        self.forms, self.parts = forms, parts
        sets = 1 if forms["tie"] in ("heads", "all") else heads
        values = {}
        for part, words in PARAMETERS.items():
            for word, start in words.items() if parts[part] else ():
                shape = (sets, head_dim) if word == "weight" else (sets,)
                start = float(parts[part]) if start is None else start
                values[word] = torch.full(shape, start, dtype=torch.float32)
        if parts["position"] and forms["position"] == "exp-exp":
            values["position"] += 1.5
        if parts["token"] and forms["hidden"] == "own":
            own = torch.empty(sets, hidden_size, head_dim, dtype=torch.float32)
            values["hidden"] = own.uniform_(-(hidden_size**-0.5), hidden_size**-0.5)
        for word, value in values.items():
            self.register_parameter(word, nn.Parameter(value))

    def forward(self, z, x, log_n, log_m):
        """z [B, T, N, H] of the hidden states x [B, T, D]; log_n and log_m [B or 1, T, 1]."""
        of = {word: parameter.float() for word, parameter in self.named_parameters(recurse=False)}
        parts, wide = self.parts, z.float()
        tau = torch.ones_like(log_n)
        if parts["token"]:
            inner = torch.einsum("btd,nde->btne", x.float(), of["hidden"]) if "hidden" in of else wide
            score = (FEATURES[self.forms["feature"]](inner) * of["weight"]).sum(-1) + of["bias"]
            tau = tau + torch.tanh(score)
        if parts["position"]:
            tau = tau + SLOPES[self.forms["position"]](of["position"]) * log_n
        if parts["constant"]:
            tau = tau + torch.tanh(of["constant"])
        if parts["ssmax"]:
            tau = tau * (of["ssmax"] * log_m)
        if parts["ssmaxBias"]:
            tau = tau * (of["ssmax_scale"] * log_m + of["ssmax_bias"])
        if parts["logn"]:
            tau = tau * (log_m / math.log(parts["logn"]))
        if parts["yarn"]:
            tau = tau * (0.1 * math.log(parts["yarn"]) + 1) ** 2
        return (tau.unsqueeze(-1) * wide).to(z.dtype)


class Temperatures(nn.Module):
    """Those of one layer; its names are `ssa.<projection>.<word>` below the attention module."""

    def __init__(self, ssa, layer, first=None):
        super().__init__()
        self.ssa, self.layer = ssa, layer
        forms = ssa["temperatures"]
        if first is None:
            for projection, heads in ssa["heads"].items():
                if any(forms[projection].values()):
                    made = Temperature(forms, forms[projection], heads, ssa["head_dim"], ssa["hidden_size"])
                    self.add_module(projection, made)
        # In a tuple the first layer's, which may be everybody's, are not registered again.
        self.source = (first or self,)

    def logs(self, x, kwargs):
        """ln n and ln m of every token, [B or 1, T, 1]."""
        positions = kwargs.get("position_ids")
        if positions is None:
            positions = kwargs.get("cache_position")
        if positions is None:
            caches = [kwargs[name] for name in ("past_key_values", "layer_past") if name in kwargs]
            if not caches:
                raise RuntimeError("attention of this version of transformers is told no positions")
            past = 0 if caches[0] is None else caches[0].get_seq_length(self.layer)
            positions = torch.arange(x.shape[1], device=x.device) + past
        # Padding may stand at -1.
        n = (positions.to(x.device).reshape(-1, x.shape[1], 1) + 1).clamp(min=1).float()
        window = self.ssa["windows"][self.layer]
        return n.log(), (n if window is None else n.clamp(max=window)).log()

    def scale(self, name, y, given, x, logs):
        """The result y, of what was given, of the module `name`, with all that it projects scaled."""
        projections, head_dim = self.ssa["places"][name], self.ssa["head_dim"]
        z = y if y.dim() == 4 else y.unflatten(-1, (-1, head_dim))
        # A norm of heads sees them before or after the tokens; where there are as many, the heads lie closer together.
        tokens = x.shape[1]
        is_transposed = y.dim() == 4 and y.shape[2] == tokens
        if is_transposed and y.shape[1] == tokens:
            is_transposed = given.stride(1) < given.stride(2)
        z = z.transpose(1, 2) if is_transposed else z
        if self.ssa["interleaved"]:
            parts, join = z.unflatten(-2, (-1, len(projections))).unbind(-2), torch.stack
        else:
            parts, join = z.split([self.ssa["heads"][one] for one in projections], dim=-2), torch.cat
        own = self.source[0]._modules
        scaled = [own[one](part, x, *logs) if one in own else part for one, part in zip(projections, parts)]
        z = join(scaled, dim=-2)
        return (z.transpose(1, 2) if is_transposed else z).reshape(y.shape)


class Projected:
    """A module of an attention module, whose result is scaled."""

    def __init__(self, module, scale):
        self.module, self.scale = module, scale

    def __call__(self, given):
        return self.scale(self.module(given), given)

    def __getattr__(self, name):
        return getattr(self.module, name)


class Scaled:
    """An attention module as its own forward sees it, so that whatever stands at a place now is what is scaled."""

    def __init__(self, attention, args, kwargs):
        self._attention, self._read = attention, set()
        self._x = args[0] if args else kwargs["hidden_states"]
        self._logs = attention.ssa.logs(self._x, kwargs)

    def __getattr__(self, name):
        found, temperatures = getattr(self._attention, name), self._attention.ssa
        if name not in temperatures.ssa["places"]:
            return found
        self._read.add(name)
        return Projected(found, lambda y, given: temperatures.scale(name, y, given, self._x, self._logs))


def scaled_attention(base):
    """The class of attention modules with what it projects scaled."""
    name = f"Ssa{base.__name__}"

    def forward(self, *args, **kwargs):
        scaled = Scaled(self, args, kwargs)
        result = base.forward(scaled, *args, **kwargs)
        if missed := self.ssa.ssa["places"].keys() - scaled._read:
            raise RuntimeError(f"{base.__name__} of this version of transformers does not use {sorted(missed)}")
        return result

    forward.__wrapped__ = base.forward  # for those who look at signatures and sources
    if name not in globals():
        globals()[name] = type(name, (base,), {"__module__": __name__, "forward": forward})
    return globals()[name]


def scaled_model(name):
    """The class of models with temperatures where the config has them."""
    base = getattr(transformers, name.removeprefix("Ssa"))

    def __init__(self, config, *args, **kwargs):
        base.__init__(self, config, *args, **kwargs)
        ssa = getattr(config, "ssa", None)
        # transformers may hold this class for every later model with a config of that type.
        if ssa is None:
            return
        inner, first = getattr(self, ssa["prefix"], self), None
        for layer in range(len(ssa["windows"])):
            attention = inner.get_submodule(ssa["attention"].format(layer))
            attention.ssa = Temperatures(ssa, layer, first)
            attention.__class__ = scaled_attention(type(attention))
            if ssa["temperatures"]["tie"] in ("layers", "all"):
                first = first or attention.ssa

    kept = [*(getattr(base, "_keep_in_fp32_modules_strict", None) or ()), "ssa"]
    body = {"__module__": __name__, "__init__": __init__, "_keep_in_fp32_modules_strict": kept}
    return type(name, (base,), body)


def __getattr__(name):
    if not name.startswith("Ssa"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = scaled_model(name)
    return globals()[name]
