"""Writes a GPT-2 124M with random weights as gpt2-f32.gguf, gpt2-f16.gguf and gpt2-q8_0.gguf, for llama_cpp.mjs.

    pip install gguf==0.17.1 numpy && python random_gguf.py FOLDER

The tokens of the vocabulary are there, and mean nothing.
"""

import sys
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, quants

LAYERS, HEADS, WIDTH, CONTEXT, VOCAB = 12, 12, 768, 1024, 50_257
KINDS = {"f32": 0, "f16": 1, "q8_0": 7}


def byte_letters() -> list[str]:
    """GPT-2's letter for each byte."""
    shown = {*range(33, 127), *range(161, 173), *range(174, 256)}
    hidden = [byte for byte in range(256) if byte not in shown]
    return [chr(byte) if byte in shown else chr(256 + hidden.index(byte)) for byte in range(256)]


def vocabulary() -> tuple[list[str], list[str]]:
    """As many tokens as GPT-2 has: all bytes, and pairs of them in order."""
    letters = byte_letters()
    pairs = [(a, b) for a in letters for b in letters][: VOCAB - 1 - len(letters)]
    return [*letters, *(a + b for a, b in pairs), "<|endoftext|>"], [f"{a} {b}" for a, b in pairs]


def matrices() -> list[tuple[str, tuple[int, int]]]:
    sizes = [("token_embd", (VOCAB, WIDTH)), ("output", (VOCAB, WIDTH)), ("position_embd", (CONTEXT, WIDTH))]
    for i in range(LAYERS):
        sizes += [
            (f"blk.{i}.attn_qkv", (3 * WIDTH, WIDTH)),
            (f"blk.{i}.attn_output", (WIDTH, WIDTH)),
            (f"blk.{i}.ffn_up", (4 * WIDTH, WIDTH)),
            (f"blk.{i}.ffn_down", (WIDTH, 4 * WIDTH)),
        ]
    return sizes


def write(folder: Path, kind: str) -> None:
    out = GGUFWriter(folder / f"gpt2-{kind}.gguf", "gpt2")
    out.add_file_type(KINDS[kind])
    out.add_block_count(LAYERS)
    out.add_head_count(HEADS)
    out.add_embedding_length(WIDTH)
    out.add_feed_forward_length(4 * WIDTH)
    out.add_context_length(CONTEXT)
    out.add_layer_norm_eps(1e-5)
    tokens, merges = vocabulary()
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre("gpt-2")
    out.add_token_list(tokens)
    out.add_token_merges(merges)
    out.add_token_types([1] * (VOCAB - 1) + [3])
    out.add_bos_token_id(VOCAB - 1)
    out.add_eos_token_id(VOCAB - 1)
    random = np.random.default_rng(1)
    for name, size in matrices():
        values = random.normal(0, 0.02, size).astype(np.float32)
        if kind == "q8_0" and name != "position_embd":
            q8_0 = GGMLQuantizationType.Q8_0
            out.add_tensor(f"{name}.weight", quants.quantize(values, q8_0), raw_dtype=q8_0)
        else:
            out.add_tensor(f"{name}.weight", values.astype(np.float16) if kind == "f16" and name != "position_embd" else values)
        if name.startswith("blk."):
            out.add_tensor(f"{name}.bias", np.zeros(size[0], np.float32))
    norms = ["output_norm", *(f"blk.{i}.{norm}" for i in range(LAYERS) for norm in ("attn_norm", "ffn_norm"))]
    for name in norms:
        out.add_tensor(f"{name}.weight", np.ones(WIDTH, np.float32))
        out.add_tensor(f"{name}.bias", np.zeros(WIDTH, np.float32))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


for kind in KINDS:
    write(Path(sys.argv[1]), kind)
