"""The folders of `ssa convert --to transformers` in the real transformers: tests/gpu/transformers.py OUT

Every fixture is held to its PyTorch logits: plain, and with every specification of temperatures exported, whole,
behind a cache, behind padding. Then vLLM and lm-evaluation-harness, where they are installed, run the embedded model's
export. OUT/transformers.json has what was found, with versions. Needs Node.js and this checkout's packages.
"""

import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
FIXTURES = ROOT / "tests" / "fixtures"
LIMIT = 2e-5  # of logits of about 5, against float64
os.environ |= {"SSA_TEST_TRANSFORMERS": "1", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
sys.path[:] = [path for path in sys.path if Path(path or ".").resolve() != HERE]  # this file's name is the package's

import torch  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402

sys.path.append(str(ROOT / "tests" / "export" / "python"))  # behind the real transformers
from run import computed  # noqa: E402

PROGRAM = ["node", "--import", "tsx", str(ROOT / "cli" / "main.ts")]
rows = []


def stage(name, check):
    """A failure is a row."""
    try:
        found, is_right = check()
    except Exception as error:  # noqa: BLE001
        found, is_right = repr(error)[:400], False
    rows.append({"stage": name, "outcome": "ok" if is_right else "FAILED", "found": found})
    print(f"{rows[-1]['outcome']:7} {name}: {found}", flush=True)


def convert(model, out, *flags):
    command = [*PROGRAM, "convert", "--model", model, "--out", out, *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(done.stderr[-400:])
    return str(out)


def plain(folder):
    expected = load_file(folder / "expected.safetensors")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        difference = (model(expected["input_ids"]).logits - expected["logits"]).abs().max().item()
    return f"{type(model).__name__}, logits differ by {difference:.1e}", difference <= LIMIT


def tempered(folder, spec, work):
    adapter = folder / "ssa" / spec
    expected = load_file(adapter / "expected.safetensors")
    flags = ("--adapter", adapter, "--to", "transformers")
    out = convert(folder, Path(work) / f"{folder.name}-{spec}", *flags)
    result = computed(out, expected["input_ids"][:1].tolist())
    logits = expected["logits"][:1].flatten()
    differences = {
        how: (torch.tensor(values) - logits).abs().max().item() for how, values in result["logits"].items()
    }
    shown = ", ".join(f"{how} {difference:.1e}" for how, difference in differences.items())
    is_right = max(differences.values()) <= LIMIT and result["inner"] <= LIMIT
    is_right = is_right and result["kept"] == ["torch.float32"] and not result["plain"]
    return f"{result['type']}, logits differ by {shown}", is_right


TEMPERATURES = "{query: {ssmax: 0.3, constant: true}, value: {token: true}}"
PROMPT = "Call me Ishmael. Some years ago"


def with_vllm(work):
    """Greedily the tokens that transformers gives."""
    from transformers import AutoTokenizer
    from vllm import LLM, SamplingParams

    folder = f"{work}/embedded"
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True, dtype=torch.float32).cuda()
    ids = AutoTokenizer.from_pretrained(folder)(PROMPT, return_tensors="pt").input_ids.cuda()
    expected = model.generate(ids, max_new_tokens=24, do_sample=False)[0, ids.shape[1] :].tolist()
    del model
    engine = LLM(folder, trust_remote_code=True, model_impl="transformers", dtype="float32", gpu_memory_utilization=0.3)
    given = {"prompt_token_ids": ids[0].tolist()}
    found = engine.generate(given, SamplingParams(temperature=0, max_tokens=24))[0].outputs[0].token_ids
    same = next((i for i, (a, b) in enumerate(zip(found, expected)) if a != b), len(expected))
    return f"the first {same} of {len(expected)} tokens are transformers'", same == len(expected)


def with_harness(work):
    """Log-likelihoods of the harness are transformers' own, of texts of two lengths in one batch."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    model = HFLM(pretrained=f"{work}/embedded", trust_remote_code=True, dtype="float32", batch_size=2)
    pairs = [(PROMPT, " having little or no money"), ("The whale", " was")]
    requests = [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(pairs)]
    differences = []
    for pair, (found, _) in zip(pairs, model.loglikelihood(requests)):
        start, ids = (model.tokenizer(text, return_tensors="pt").input_ids for text in (pair[0], "".join(pair)))
        with torch.no_grad():
            logs = torch.log_softmax(model.model(ids.to(model.device)).logits[0].float().cpu(), dim=-1)
        own = logs[start.shape[1] - 1 : -1].gather(-1, ids[0, start.shape[1] :, None]).sum().item()
        differences.append(abs(own - found))
    return f"log-likelihoods differ by {max(differences):.1e}", max(differences) <= 1e-3


def version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def main(out):
    out.mkdir(parents=True, exist_ok=True)
    versions = {name: version(name) for name in ("transformers", "torch", "vllm", "lm_eval", "accelerate", "peft")}
    versions |= {"python": sys.version.split()[0], "cuda": torch.cuda.is_available() and torch.cuda.get_device_name()}
    print(versions)
    with tempfile.TemporaryDirectory() as work:
        for folder in sorted(path.parent for path in FIXTURES.glob("*/config.json")):
            stage(folder.name, lambda: plain(folder))  # noqa: B023
            for spec in sorted(path.name for path in (folder / "ssa").glob("*")):
                stage(f"{folder.name} {spec}", lambda: tempered(folder, spec, work))  # noqa: B023
        embedded = Path(work) / "embedded"
        flags = ("--temperatures", TEMPERATURES, "--to", "transformers")
        stage("embedded model", lambda: (convert("tiny-gpt2", embedded, *flags), True))
        if versions["vllm"] and versions["cuda"]:
            stage("vLLM", lambda: with_vllm(work))
        if versions["lm_eval"]:
            stage("lm-evaluation-harness", lambda: with_harness(work))
    (out / "transformers.json").write_text(json.dumps({"versions": versions, "rows": rows}, indent=2) + "\n")
    return 1 if any(row["outcome"] == "FAILED" for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
