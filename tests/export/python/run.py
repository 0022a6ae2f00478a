"""Logits of exported folders: a JSON list of {folder, ids} on standard input, a list of what was computed on standard output.

With the real transformers where it is installed and SSA_TEST_TRANSFORMERS says so, else with the stand-in beside.
"""

import json
import os
import sys

import torch

if not os.environ.get("SSA_TEST_TRANSFORMERS"):
    sys.path.insert(0, os.path.dirname(__file__))
import transformers  # noqa: E402
from transformers import AutoModel, AutoModelForCausalLM  # noqa: E402

PADDING = 3


def new_cache():
    return getattr(transformers, "Cache" if not hasattr(transformers, "DynamicCache") else "DynamicCache")()


def cached(model, ids):
    """Some at once, then some, then one by one."""
    cache, parts, start = new_cache(), [], 0
    for stop in (5, 8, *range(9, ids.shape[1] + 1)):
        given = {"past_key_values": cache, "attention_mask": torch.ones(ids.shape[0], stop, dtype=torch.long)}
        parts.append(model(ids[:, start:stop], **given).logits)
        start = stop
    return torch.cat(parts, dim=1)


def padded(model, ids):
    """Padding in front, and the positions that generation gives; all but one token at once, then the last."""
    batch, length = ids.shape
    padding = torch.zeros(batch, PADDING, dtype=torch.long)
    mask = torch.cat((padding, torch.ones(batch, length, dtype=torch.long)), dim=1)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    whole, cache, parts = torch.cat((padding, ids), dim=1), new_cache(), []
    for part in (slice(0, PADDING + length - 1), slice(PADDING + length - 1, None)):
        given = {"attention_mask": mask[:, : part.stop], "position_ids": positions[:, part]}
        parts.append(model(whole[:, part], past_key_values=cache, **given).logits)
    return torch.cat(parts, dim=1)[:, PADDING:]


def computed(folder, ids):
    ids = torch.tensor(ids)
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
    inner = AutoModel.from_pretrained(folder, trust_remote_code=True)
    last = inner(ids)
    whole = getattr(model, model.config.ssa["prefix"])(ids)
    last, whole = (getattr(one, "last_hidden_state", one) for one in (last, whole))
    half = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True, dtype=torch.bfloat16)
    kept = {str(p.dtype) for name, p in half.named_parameters() if ".ssa." in name}
    results = {"whole": model(ids).logits, "cached": cached(model, ids)}
    # GPT-Neo's attention is told no positions: its padding is counted.
    if model.config.model_type != "gpt_neo":
        results["padded"] = padded(model, ids)
    return {
        "type": type(model).__name__,
        "inner": (last - whole).abs().max().item(),
        "kept": sorted(kept),
        "logits": {name: logits.flatten().tolist() for name, logits in results.items()},
    }


with torch.no_grad():
    json.dump([computed(**job) for job in json.load(sys.stdin)], sys.stdout)
