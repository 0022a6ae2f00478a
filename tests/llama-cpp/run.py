"""llama.cpp by its shared libraries: run.py FOLDER < jobs.jsonl, a job a line, an answer a line.

{"logits": GGUF, "ids": [[...], ...], "yarn": [FAST, SLOW], "to": FILE}  every token's logits, F32, of each sequence by itself
{"quantize": GGUF, "type": FTYPE, "to": GGUF}      every matrix as one type
{"tokens": GGUF, "text": TEXT, "to": FILE}  the ids of a text, I32, of the file's tokenizer alone
{"values": FILE, "type": TYPE, "count": N, "to": FILE}  F32 of N values that are stored in a type of ggml

Python's own library is enough: structures are bytes, whose layout is checked by the defaults in them.
"""

import ctypes
import json
import struct
import sys
from ctypes import CFUNCTYPE, POINTER, byref, c_char_p, c_float, c_int, c_int64, c_void_p
from glob import glob


class ModelParams(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_ubyte * 80)]


class ContextParams(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_ubyte * 160)]


class QuantizeParams(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_ubyte * 64)]


class Batch(ctypes.Structure):
    _fields_ = [
        ("count", ctypes.c_int32), ("token", POINTER(ctypes.c_int32)), ("embd", c_void_p),
        ("pos", c_void_p), ("n_seq_id", c_void_p), ("seq_id", c_void_p), ("output", POINTER(ctypes.c_int8)),
    ]


class TypeTraits(ctypes.Structure):
    _fields_ = [
        ("name", c_char_p), ("block", c_int64), ("interleaved", c_int64), ("size", ctypes.c_size_t),
        ("quantized", ctypes.c_bool), ("to_float", CFUNCTYPE(None, c_void_p, c_void_p, c_int64)),
    ]


def library(folder, name):
    (path,) = glob(f"{folder}/lib{name}.*so") or glob(f"{folder}/lib{name}*.so")
    return ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)


folder = sys.argv[1]
base, ggml, llama = (library(folder, name) for name in ("ggml-base", "ggml", "llama"))
Log = CFUNCTYPE(None, c_int, c_char_p, c_void_p)
log = Log(lambda level, text, _: level == 4 and sys.stderr.write(text.decode(errors="replace")))
llama.llama_log_set(log, None)
ggml.ggml_backend_load_all_from_path(folder.encode())
for name, result in (
    ("llama_model_default_params", ModelParams), ("llama_context_default_params", ContextParams),
    ("llama_model_quantize_default_params", QuantizeParams), ("llama_batch_init", Batch),
    ("llama_model_load_from_file", c_void_p), ("llama_init_from_model", c_void_p),
    ("llama_get_memory", c_void_p), ("llama_get_logits", POINTER(c_float)),
    ("llama_model_get_vocab", c_void_p), ("llama_vocab_n_tokens", ctypes.c_int32),
):
    getattr(llama, name).restype = result
base.ggml_get_type_traits.restype = POINTER(TypeTraits)


def checked(condition, what):
    if not condition:
        raise SystemExit(what)


def put(params, offset, expected, value, form="<i"):
    """Another value than the default, which must be what this release's layout has at this place."""
    (found,) = struct.unpack_from(form, params.bytes, offset)
    checked(found == expected, f"the layout of llama.cpp's parameters has changed: {found} at byte {offset}")
    struct.pack_into(form, params.bytes, offset, value)


def logits(path, sequences, to, yarn=None):
    model_params = llama.llama_model_default_params()
    put(model_params, 74, 1, 0, "<b")  # use_extra_bufts: weights stay as they are stored
    model = llama.llama_model_load_from_file(path.encode(), model_params)
    checked(model, f"llama.cpp does not load {path}")
    params = llama.llama_context_default_params()
    put(params, 0, 512, 256)  # n_ctx
    put(params, 28, 4, 1)  # n_threads
    put(params, 32, 4, 1)  # n_threads_batch
    put(params, 52, -1, 0)  # flash_attn_type: none
    put(params, 104, 1, 0)  # type_k: F32
    put(params, 108, 1, 0)  # type_v: F32
    for offset, value in zip((72, 76), yarn or ()):  # yarn_beta_fast, yarn_beta_slow
        put(params, offset, -1.0, value, "<f")
    context = llama.llama_init_from_model(c_void_p(model), params)
    checked(context, f"no context for {path}")
    size = llama.llama_vocab_n_tokens(c_void_p(llama.llama_model_get_vocab(c_void_p(model))))
    with open(to, "wb") as file:
        for ids in sequences:
            llama.llama_memory_clear(c_void_p(llama.llama_get_memory(c_void_p(context))), True)
            tokens, all_of_them = (ctypes.c_int32 * len(ids))(*ids), (ctypes.c_int8 * len(ids))(*[1] * len(ids))
            batch = Batch(count=len(ids), token=tokens, output=all_of_them)
            checked(llama.llama_decode(c_void_p(context), batch) == 0, f"{path}: decode failed")
            result = llama.llama_get_logits(c_void_p(context))
            file.write(bytes((c_float * (size * len(ids))).from_address(ctypes.addressof(result.contents))))
    llama.llama_free(c_void_p(context))
    llama.llama_model_free(c_void_p(model))


def tokens(path, text, to):
    params = llama.llama_model_default_params()
    put(params, 72, 0, 1, "<b")  # vocab_only
    model = llama.llama_model_load_from_file(path.encode(), params)
    checked(model, f"llama.cpp does not load {path}")
    vocab, data = c_void_p(llama.llama_model_get_vocab(c_void_p(model))), text.encode()
    ids = (ctypes.c_int32 * (len(data) + 8))()
    count = llama.llama_tokenize(vocab, data, len(data), ids, len(ids), True, True)
    checked(count >= 0, f"{path}: the text was not tokenized")
    with open(to, "wb") as file:
        file.write(bytes(ids)[: 4 * count])
    llama.llama_model_free(c_void_p(model))


def quantize(path, kind, to):
    params = llama.llama_model_quantize_default_params()
    put(params, 0, 0, 1)  # nthread
    put(params, 4, 7, kind)  # ftype
    put(params, 19, 0, 1, "<b")  # pure
    failed = llama.llama_model_quantize(path.encode(), to.encode(), byref(params))
    checked(not failed, f"{path} was not quantized")


def values(path, kind, count, to):
    with open(path, "rb") as file:
        stored = file.read()
    result = (c_float * count)()
    base.ggml_get_type_traits(kind).contents.to_float(stored, ctypes.addressof(result), count)
    with open(to, "wb") as file:
        file.write(bytes(result))


llama.llama_backend_init()
for line in sys.stdin:
    job = json.loads(line)
    if "logits" in job:
        logits(job["logits"], job["ids"], job["to"], job.get("yarn"))
    elif "tokens" in job:
        tokens(job["tokens"], job["text"], job["to"])
    elif "quantize" in job:
        quantize(job["quantize"], job["type"], job["to"])
    else:
        values(job["values"], job["type"], job["count"], job["to"])
    print("done", flush=True)
