"""What exported folders compute: a JSON list of {folder, ids} on standard input, a list of results on standard output.

The real transformers serves where SSA_TEST_TRANSFORMERS is set, else the stand-in beside; `computed` is for others too.
"""

import copy
import json
import os
import sys

import torch

if os.environ.get("SSA_TEST_TRANSFORMERS"):  # a script's own folder comes first
    sys.path[:] = [path for path in sys.path if path != os.path.dirname(os.path.abspath(__file__))]
from transformers import AutoModel, AutoModelForCausalLM, DynamicCache  # noqa: E402

PADDING = 3


def cached(model, ids):
    """Some tokens at once, some more, then one by one."""
    cache, parts, start = DynamicCache(), [], 0
    for stop in (5, 9, *range(10, ids.shape[1] + 1)):
        mask = torch.ones(ids.shape[0], stop, dtype=torch.long)
        parts.append(model(ids[:, start:stop], past_key_values=cache, attention_mask=mask).logits)
        start = stop
    return torch.cat(parts, dim=1)


def padded(model, ids):
    """Behind padding, beside a longer text, with the positions that generation gives; the last token by itself."""
    longer = torch.cat((ids[:, :PADDING], ids), dim=1)
    whole = torch.cat((torch.cat((0 * ids[:, :PADDING], ids), dim=1), longer))
    mask = torch.ones_like(whole)
    mask[0, :PADDING] = 0
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    cache, parts, last = DynamicCache(), [], whole.shape[1] - 1
    for part in (slice(0, last), slice(last, last + 1)):
        given = {"attention_mask": mask[:, : part.stop], "position_ids": positions[:, part]}
        parts.append(model(whole[:, part], past_key_values=cache, **given).logits)
    return torch.cat(parts, dim=1)[:1, PADDING:]


@torch.no_grad()
def computed(folder, ids):
    ids, given = torch.tensor(ids), {"trust_remote_code": True}
    model = AutoModelForCausalLM.from_pretrained(folder, **given).eval()
    inner, below = AutoModel.from_pretrained(folder, **given).eval(), getattr(model, model.config.ssa["prefix"])
    half = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, **given)
    plain = copy.deepcopy(model.config)
    del plain.ssa
    logits = {"whole": model(ids).logits, "cached": cached(model, ids), "copied": copy.deepcopy(model)(ids).logits}
    logits["exact"] = copy.deepcopy(model).double()(ids).logits
    # GPT-Neo's attention is told no positions: there padding is counted.
    if model.config.model_type != "gpt_neo":
        logits["padded"] = padded(model, ids)
    return {
        "type": type(model).__name__,
        "inner": (inner(ids).last_hidden_state - below(ids).last_hidden_state).abs().max().item(),
        "kept": sorted({str(p.dtype) for name, p in half.named_parameters() if ".ssa." in name}),
        "plain": [name for name, _ in type(model)(plain).named_parameters() if ".ssa." in name],
        "starts": {
            name: [p.min().item(), p.max().item()]
            for name, p in type(model)(model.config).named_parameters()
            if ".ssa." in name
        },
        "logits": {name: values.flatten().tolist() for name, values in logits.items()},
    }


if __name__ == "__main__":
    json.dump([computed(**job) for job in json.load(sys.stdin)], sys.stdout)
