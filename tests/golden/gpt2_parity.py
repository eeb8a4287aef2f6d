"""Golden values of a tiny GPT-2: logits, loss, gradients and an AdamW trajectory.

Two models of transformers' GPT2LMHeadModel are filled with seeded random
weights and evaluated on one small batch, on the CPU, in f32, on one thread:

    gpt2_bias.safetensors    every bias present, random and trained
    gpt2_nobias.safetensors  every bias zero and frozen (as if there were none)

The files also hold the results of wrong models ("mutants") with the same
weights. The script refuses to write a file unless each mutant's logits are
clearly away from the right ones, so a test that compares with the right ones
at a tolerance well below MUTANT_MARGIN would notice each of these mistakes.

Made with Python 3.11 and exactly these packages:

    python3 -m venv venv
    venv/bin/pip install torch==2.15.0 numpy==2.4.6 transformers==5.23.0 \
        tokenizers==0.23.3 safetensors==0.8.0
    venv/bin/python gpt2_parity.py

Nothing is downloaded when it runs. The output lies beside the script, or in
the folder named by the first argument.
"""

import copy
import json
import os
import struct
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import safetensors
import tokenizers
import torch
import torch.nn.functional as F
import transformers
from safetensors import safe_open
from transformers import GPT2Config, GPT2LMHeadModel

PINNED = {
    torch: "2.15.0",
    np: "2.4.6",
    transformers: "5.23.0",
    tokenizers: "0.23.3",
    safetensors: "0.8.0",
}

LAYERS, HEADS, WIDTH, CONTEXT, VOCAB = 2, 4, 32, 16, 61
ROWS = 3
NORM_EPS = 1e-5

BETAS, ADAM_EPS, DECAY, CLIP, STEPS = (0.9, 0.95), 1e-8, 0.1, 1.0, 10
MIN_FALL = 0.7  # nats the loss must fall over the ten steps

TOLERANCE = 1e-5  # what a test may allow, relative to the largest logit
MUTANT_MARGIN = 20 * TOLERANCE
MAX_BYTES = 600_000

# Standard deviations. Those of linear layers are multiples of 1/sqrt(fan_in).
EMBEDDING_STD = 0.1
LINEAR_STD = {
    "attn.c_attn": 1.2,
    "attn.c_proj": 1.0,
    "mlp.c_fc": 1.2,
    "mlp.c_proj": 1.5,
}
GAIN_SPREAD = 0.2
BIAS_STD = 0.2

# file stem -> (has biases, seed of the weights, learning rate)
MODELS = {
    "gpt2_bias": (True, 1001, 1e-2),
    "gpt2_nobias": (False, 1002, 1e-2),
}
BATCH_SEED = 1000

# Positions without weight in the loss: another count in each row.
IGNORED = [[0, 7], [3, 4, 11, 15], [0, 1, 2, 9, 10, 14, 15]]

MUTANT_GRADS = ["h.0.attn.c_attn.weight", "h.1.mlp.c_fc.weight", "wte.weight"]

# Who may look at whom, [query, key].
QUERY = torch.arange(CONTEXT)[:, None]
KEY = torch.arange(CONTEXT)[None, :]
CAUSAL = KEY <= QUERY
ONE_AHEAD = KEY <= QUERY + 1
EVERYONE = torch.ones(CONTEXT, CONTEXT, dtype=torch.bool)

# name -> (changes of the configuration, who sees whom, mask to pass or None)
MUTANTS = {
    "gelu_exact": ({"activation_function": "gelu"}, CAUSAL, None),
    "attention_scale": ({"scale_attn_weights": False}, CAUSAL, None),
    "norm_epsilon": ({"layer_norm_epsilon": 1e-6}, CAUSAL, None),
    "mask": ({}, EVERYONE, EVERYONE),
    "mask_shifted": ({}, ONE_AHEAD, ONE_AHEAD),
}


def check_versions():
    for module, wanted in PINNED.items():
        found = module.__version__.split("+")[0]
        if found != wanted:
            sys.exit(f"{module.__name__} {found} is installed; the golden files want {wanted}")


def new_model(**changes):
    options = dict(
        vocab_size=VOCAB,
        n_positions=CONTEXT,
        n_embd=WIDTH,
        n_layer=LAYERS,
        n_head=HEADS,
        activation_function="gelu_new",
        layer_norm_epsilon=NORM_EPS,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        tie_word_embeddings=True,
        use_cache=False,
        bos_token_id=None,
        eos_token_id=None,
        attn_implementation="eager",
    )
    options.update(changes)
    model = GPT2LMHeadModel(GPT2Config(**options)).eval()
    assert model.config._attn_implementation == "eager"
    assert model.lm_head.weight is model.transformer.wte.weight
    return model


def parameters(model):
    """(short name, parameter), the tied head only as the token embedding."""
    return [(name.removeprefix("transformer."), p) for name, p in model.named_parameters()]


def trained(model):
    return [(name, p) for name, p in parameters(model) if p.requires_grad]


@torch.no_grad()
def fill(model, has_biases, seed):
    torch.manual_seed(seed)
    for name, p in parameters(model):
        noise = torch.randn(p.shape)
        if name in ("wte.weight", "wpe.weight"):
            p.copy_(EMBEDDING_STD * noise)
        elif name.endswith(".bias"):
            p.copy_(BIAS_STD * noise if has_biases else torch.zeros(p.shape))
            p.requires_grad_(has_biases)
        elif ".ln_" in f".{name}":
            p.copy_(1.0 + GAIN_SPREAD * noise)
        else:
            layer = next(k for k in LINEAR_STD if f".{k}." in name)
            p.copy_(LINEAR_STD[layer] / p.shape[0] ** 0.5 * noise)  # Conv1D is [in, out]


def make_batch():
    torch.manual_seed(BATCH_SEED)
    stream = torch.randint(0, VOCAB, (ROWS, CONTEXT + 1))
    weights = torch.ones(ROWS, CONTEXT)
    for row, ignored in enumerate(IGNORED):
        weights[row, ignored] = 0.0
    return stream[:, :-1].contiguous(), stream[:, 1:].contiguous(), weights


def additive(visible, dtype):
    """A 4-D mask, which transformers passes on to the attention as it is."""
    mask = torch.zeros(ROWS, 1, CONTEXT, CONTEXT, dtype=dtype)
    return mask.masked_fill(~visible, torch.finfo(dtype).min)


def mean_loss(logits, targets, weights):
    each = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    loss = (each * weights.flatten().to(each.dtype)).sum() / weights.sum()
    # the same by the library's own way of ignoring positions
    labels = targets.masked_fill(weights == 0, -100)
    other = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100)
    assert abs(loss.item() - other.item()) < 1e-5
    return loss


def evaluate(model, batch, sees=CAUSAL, mask=None):
    """Logits, loss and gradients, once it is certain who attends to whom."""
    ids, targets, weights = batch
    if mask is not None:
        mask = additive(mask, model.dtype)
    model.zero_grad(set_to_none=True)
    out = model(ids, attention_mask=mask, output_attentions=True)
    assert len(out.attentions) == LAYERS
    for attention in out.attentions:
        assert torch.equal(attention > 0, sees.expand_as(attention)), "unexpected attention mask"
    loss = mean_loss(out.logits, targets, weights)
    loss.backward()
    grads = {name: p.grad.clone() for name, p in trained(model)}
    return out.logits.detach(), loss.detach(), grads


def pre_activations(model, batch):
    """(name, standard deviation) of what enters each nonlinearity."""
    seen = []

    def on_norm(name):
        def hook(_, args):
            seen.append((name, args[0].var(dim=-1, correction=0).mean().item()))
        return hook

    def on_attention(name):
        def hook(_, args, out):
            q, k, _ = (x.unflatten(-1, (HEADS, -1)).transpose(1, 2) for x in out.split(WIDTH, -1))
            scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
            seen.append((name, scores[..., CAUSAL].std().item()))
        return hook

    def on_mlp(name):
        def hook(_, args, out):
            seen.append((name, out.std().item()))
        return hook

    body = model.transformer
    handles = [body.ln_f.register_forward_pre_hook(on_norm("variance into ln_f"))]
    for i, block in enumerate(body.h):
        handles += [
            block.ln_1.register_forward_pre_hook(on_norm(f"variance into h.{i}.ln_1")),
            block.attn.c_attn.register_forward_hook(on_attention(f"std of h.{i} attention scores")),
            block.ln_2.register_forward_pre_hook(on_norm(f"variance into h.{i}.ln_2")),
            block.mlp.c_fc.register_forward_hook(on_mlp(f"std of h.{i} MLP pre-activations")),
        ]
    with torch.no_grad():
        model(batch[0])
    for handle in handles:
        handle.remove()
    return seen


def train(model, batch, lr):
    """Ten AdamW steps on a copy: losses before each, last loss, norms before clipping."""
    model = copy.deepcopy(model)
    ids, targets, weights = batch
    params = [p for _, p in trained(model)]
    groups = [
        {"params": [p for p in params if p.dim() >= 2], "weight_decay": DECAY},
        {"params": [p for p in params if p.dim() < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(
        groups, lr=lr, betas=BETAS, eps=ADAM_EPS, amsgrad=False, foreach=False, fused=False
    )
    losses, norms = [], []
    for _ in range(STEPS):
        optimizer.zero_grad(set_to_none=True)
        loss = mean_loss(model(ids).logits, targets, weights)
        loss.backward()
        losses.append(loss.detach())
        norms.append(torch.nn.utils.clip_grad_norm_(params, CLIP).detach())
        optimizer.step()
    with torch.no_grad():
        last = mean_loss(model(ids).logits, targets, weights)
    return torch.stack(losses), last.reshape(1), torch.stack(norms)


def relative(a, b):
    """Largest difference over the largest magnitude of the reference `b`."""
    return ((a.double() - b.double()).abs().max() / b.abs().max()).item()


def write_safetensors(path, tensors, metadata):
    """The safetensors library does not promise an order of the metadata; this does."""
    kinds = {torch.float32: ("F32", "<f4"), torch.int32: ("I32", "<i4")}
    header, body = {"__metadata__": dict(sorted(metadata.items()))}, b""
    for name in sorted(tensors):
        tensor = tensors[name].detach()
        label, layout = kinds[tensor.dtype]
        data = tensor.contiguous().numpy().astype(layout).tobytes()
        header[name] = {
            "dtype": label,
            "shape": list(tensor.shape),
            "data_offsets": [len(body), len(body) + len(data)],
        }
        body += data
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)

    with safe_open(path, "pt") as file:
        assert file.metadata() == metadata
        assert set(file.keys()) == set(tensors)
        for name, tensor in tensors.items():
            assert torch.equal(file.get_tensor(name), tensor), name
            assert torch.isfinite(tensor).all(), name
    assert path.stat().st_size < MAX_BYTES


def make(stem, folder):
    has_biases, seed, lr = MODELS[stem]
    batch = make_batch()
    ids, targets, weights = batch
    model = new_model()
    fill(model, has_biases, seed)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    state = model.state_dict()

    logits, loss, grads = evaluate(model, batch)
    tensors = {
        "ids": ids.to(torch.int32),
        "targets": targets.to(torch.int32),
        "weights": weights,
        "logits": logits,
        "loss": loss.reshape(1),
    }
    for name, p in trained(model):
        tensors[f"param.{name}"] = p.detach().clone()
        tensors[f"grad.{name}"] = grads[name]

    print(f"== {stem}: {len(grads)} trained tensors, loss {loss.item():.6f}, "
          f"largest logit {logits.abs().max().item():.4f}, "
          f"counted tokens per row {[int(n) for n in weights.sum(1)]}")
    for name, value in pre_activations(model, batch):
        print(f"   {name:<34} {value:.4f}")

    # How far f32 rounding alone takes the results: the same in f64.
    wide = copy.deepcopy(model).double()
    wide_logits, wide_loss, wide_grads = evaluate(wide, batch)
    ratios = {n: relative(grads[n], wide_grads[n]) for n in grads}
    worst = max(ratios, key=ratios.get)
    print("   f32 against f64, relative: "
          f"logits {relative(logits, wide_logits):.1e}, loss {relative(loss, wide_loss):.1e}, "
          f"worst gradient {ratios[worst]:.1e} ({worst})")

    print(f"   {'mutant':<16} {'loss':>9} {'logits':>9}  " + "  ".join(f"{n:>22}" for n in MUTANT_GRADS)
          + "   (largest difference / largest right value)")
    for mutant, (changes, sees, mask) in MUTANTS.items():
        wrong = new_model(**changes)
        wrong.load_state_dict(state)
        for (_, p), (_, q) in zip(parameters(wrong), parameters(model), strict=True):
            p.requires_grad_(q.requires_grad)
        m_logits, m_loss, m_grads = evaluate(wrong, batch, sees, mask)
        away = relative(m_logits, logits)
        print(f"   {mutant:<16} {m_loss.item():9.6f} {away:9.2e}  "
              + "  ".join(f"{relative(m_grads[n], grads[n]):22.2e}" for n in MUTANT_GRADS))
        assert away >= MUTANT_MARGIN, f"{stem}: mutant {mutant} is too close to the right model"
        tensors[f"mutant.{mutant}.logits"] = m_logits
        tensors[f"mutant.{mutant}.loss"] = m_loss.reshape(1)
        for name in MUTANT_GRADS:
            tensors[f"mutant.{mutant}.grad.{name}"] = m_grads[name]

    losses, last, norms = train(model, batch, lr)
    wide_losses, wide_last, _ = train(wide, batch, lr)
    tensors["adamw.losses"], tensors["adamw.final_loss"] = losses, last
    tensors["adamw.grad_norms"] = norms
    curve = torch.cat([losses, last])
    print(f"   AdamW at lr {lr:g}")
    print("   losses     " + " ".join(f"{x:.4f}" for x in curve.tolist()))
    print("   grad norms " + " ".join(f"{x:.4f}" for x in norms.tolist()))
    print(f"   f32 against f64, largest absolute loss difference "
          f"{(curve.double() - torch.cat([wide_losses, wide_last])).abs().max().item():.1e}")
    assert torch.equal(losses[:1], tensors["loss"])
    assert (curve.diff() < 0).all(), f"{stem}: the loss does not fall smoothly"
    assert curve[0] - curve[-1] >= MIN_FALL, f"{stem}: the loss falls too little"
    assert (norms > CLIP).any() and (norms < CLIP).any(), f"{stem}: want steps with and without clipping"

    path = folder / f"{stem}.safetensors"
    write_safetensors(path, tensors, {
        "lr": repr(lr),
        "beta_1": repr(BETAS[0]),
        "beta_2": repr(BETAS[1]),
        "epsilon": repr(ADAM_EPS),
        "weight_decay": repr(DECAY),
        "grad_clip": repr(CLIP),
        "n_layers": str(LAYERS),
        "n_heads": str(HEADS),
        "d_model": str(WIDTH),
        "context_len": str(CONTEXT),
        "vocab_size": str(VOCAB),
        "norm_eps": repr(NORM_EPS),
        "torch": PINNED[torch],
        "transformers": PINNED[transformers],
    })
    print(f"   {path.name}: {len(tensors)} tensors, {path.stat().st_size} bytes")


def main():
    check_versions()
    torch.set_num_threads(1)
    torch.set_num_interop_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.set_default_dtype(torch.float32)
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent
    for stem in MODELS:
        make(stem, folder)


if __name__ == "__main__":
    main()
