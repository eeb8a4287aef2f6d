#!/usr/bin/env python3
"""Trains configs/shakespeare-char.toml in PyTorch, whole: the peer that `cargo xtask bench recipe` is held against.

Setup:  python3 -m venv venv && venv/bin/pip install torch numpy
Run:    venv/bin/python torch_recipe.py INPUT.txt [--seed 1] [--steps 2000] [--eval-every 250]

First 90 % of the characters train, the rest validates: non-overlapping windows of the context length, each target once.
Prints one line of JSON at the end: validation loss in nats a character, seconds in all, seconds training, tokens/s.
"""
import argparse, json, math, time
import torch, torch.nn as nn, torch.nn.functional as F
from torch_step import Gpt

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("input")
parser.add_argument("--seed", type=int, default=1)
parser.add_argument("--steps", type=int, default=2000)
parser.add_argument("--eval-every", type=int, default=250)
args = parser.parse_args()
layers, heads, width, context, batch = 4, 4, 128, 64, 12
peak_lr, end_lr, warmup = 1e-3, 1e-4, 100

text = open(args.input, encoding="utf-8").read()
chars = sorted(set(text))
index = {c: i for i, c in enumerate(chars)}
data = torch.tensor([index[c] for c in text])
split = int(0.9 * len(data))
train, val = data[:split], data[split:]

torch.manual_seed(args.seed)
model = Gpt(layers, heads, width, context, len(chars))
for name, parameter in model.named_parameters():
    if name.endswith(("proj.weight", "down.weight")):
        nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * layers))
decay = [p for p in model.parameters() if p.dim() >= 2]
plain = [p for p in model.parameters() if p.dim() < 2]
optimizer = torch.optim.AdamW([{"params": decay, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}], lr=peak_lr, betas=(0.9, 0.99), fused=True)


def lr_at(step):
    if step < warmup:
        return peak_lr * (step + 1) / (warmup + 1)
    return end_lr + 0.5 * (peak_lr - end_lr) * (1 + math.cos(math.pi * (step - warmup) / (args.steps - warmup)))


@torch.no_grad()
def validate():
    n = (len(val) - 1) // context
    ids, targets = val[: n * context].view(n, context), val[1 : n * context + 1].view(n, context)
    return sum(model(i, t).item() * len(i) for i, t in zip(ids.split(128), targets.split(128))) / n


start, in_eval = time.perf_counter(), 0.0
for step in range(args.steps + 1):
    if step and (step % args.eval_every == 0 or step == args.steps):
        t = time.perf_counter()
        loss = validate()
        in_eval += time.perf_counter() - t
        if step == args.steps:
            break
    for group in optimizer.param_groups:
        group["lr"] = lr_at(step)
    at = torch.randint(len(train) - context, (batch,))
    ids = torch.stack([train[i : i + context] for i in at])
    targets = torch.stack([train[i + 1 : i + context + 1] for i in at])
    model(ids, targets).backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
seconds = time.perf_counter() - start
print(json.dumps({"peer": "torch " + torch.__version__, "recipe": "shakespeare-char", "seed": args.seed, "steps": args.steps, "val_loss": round(loss, 4),
                  "seconds": round(seconds, 2), "train_seconds": round(seconds - in_eval, 2), "tokens_per_s": round(args.steps * batch * context / (seconds - in_eval))}))
