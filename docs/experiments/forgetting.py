"""What fine-tuning learns and forgets: plain, held to its base (Learning without Forgetting), and by adapters (LoRA).

Trains a base on one text, fine-tunes it on another in several ways, each with several seeds, and writes every result as a line of
JSON, a table, and a picture. What is there already is not computed again. Needs Python 3.9 and nothing else.

    python3 forgetting.py --kindling target/release/kindling --config configs/shakespeare-char.toml \
        --old input.txt --new wikitext2-valid.txt --out results
"""

import argparse
import json
import statistics
import subprocess
from pathlib import Path

BASE_STEPS = 1000
VOCAB_SIZE = 1024
# Every way is a curve; its points differ in what the curve's name says. `options` are those of `kindling finetune`.
CURVES = {
    "plain, stopped after N steps": [(n, n, []) for n in (25, 50, 100, 200, 400, 800, 1600)],
    "LwF, weight W, 400 steps": [(w, 400, ["--lwf", str(w)]) for w in (0.5, 1, 2, 5)],
    "LoRA, rank R, 400 steps": [(r, 400, ["--lora", str(r)]) for r in (2, 8, 32)],
}


def run(args, command):
    done = subprocess.run([args.kindling, "--runs-dir", str(args.out / "runs"), "--json", "--quiet", *command],
                          stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout)


def base(args, seed):
    name = f"base-{seed}"
    if not (args.out / "runs" / name / "summary.json").exists():
        run(args, ["train", "--config", args.config, "--data", args.old, "--data-dir", str(args.out / "data"), "--name", name,
                   "--set", f"seed={seed}", "--set", "tokenizer.kind=bpe", "--set", f"tokenizer.vocab_size={VOCAB_SIZE}",
                   "--set", "train.optimizer=muon", "--set", f"train.steps={BASE_STEPS}", "--set", "train.eval_every=250"])
    return name


def measure(args, results):
    done = {(r["curve"], r["point"], r["seed"]) for r in results}
    for seed in args.seeds:
        name = base(args, seed)
        for curve, points in CURVES.items():
            for point, steps, options in points:
                if (curve, point, seed) in done or (args.only and not curve.startswith(args.only)):
                    continue
                out = run(args, ["finetune", "--base", name, "--data", args.new, "--data-dir", str(args.out / "data"), *options,
                                 "--set", f"seed={seed}", "--set", f"train.steps={steps}", "--set", f"train.eval_every={max(steps // 8, 1)}",
                                 "--set", f"train.checkpoint_every={steps}", "--set", "sample.max_new_tokens=1"])
                told = out["summary"]["forgetting"]
                result = {"curve": curve, "point": point, "seed": seed, "best_step": out["summary"]["best"][1],
                          **{f"{text}_{when}": told[text][when] for text in ("old", "new") for when in ("before", "after")}}
                results.append(result)
                with open(args.out / "results.jsonl", "a") as file:
                    file.write(json.dumps(result) + "\n")
                print(json.dumps(result), flush=True)


def summary(results):
    """Mean and standard deviation over the seeds of every point."""
    rows = []
    for curve, points in CURVES.items():
        for point, _, _ in points:
            of = [r for r in results if r["curve"] == curve and r["point"] == point]
            if of:
                mean = {text: statistics.mean(r[f"{text}_after"] for r in of) for text in ("old", "new")}
                sd = {text: statistics.stdev(r[f"{text}_after"] for r in of) if len(of) > 1 else 0.0 for text in ("old", "new")}
                rows.append({"curve": curve, "point": point, "n": len(of), "mean": mean, "sd": sd})
    return rows


def plain_at(results, seed, new):
    """The old text's loss that plain fine-tuning of a seed comes to where its new text's loss is `new`, between its points."""
    points = sorted((r["new_after"], r["old_after"]) for r in results if r["curve"].startswith("plain") and r["seed"] == seed)
    points = [points[0]] if len(points) == 1 else points
    for (x0, y0), (x1, y1) in zip(points, points[1:]):
        if x0 <= new <= x1:
            return y0 + (y1 - y0) * (new - x0) / (x1 - x0)
    return None


def table(results):
    print(f"\n{'curve':32} {'point':>6} {'new':>16} {'old':>16} {'old, beside plain at the same new':>36}")
    for row in summary(results):
        gains = []
        for r in results:
            if (r["curve"], r["point"]) == (row["curve"], row["point"]) and not row["curve"].startswith("plain"):
                plain = plain_at(results, r["seed"], r["new_after"])
                if plain is not None:
                    gains.append(r["old_after"] - plain)
        gain = ""
        if len(gains) > 1:
            mean, sd = statistics.mean(gains), statistics.stdev(gains)
            gain = f"{mean:+.4f} ± {sd:.4f} ({abs(mean) / sd:.0f} sd)"
        pair = [f"{row['mean'][text]:.4f} ± {row['sd'][text]:.4f}" for text in ("new", "old")]
        print(f"{row['curve']:32} {row['point']:>6} {pair[0]:>16} {pair[1]:>16} {gain:>36}")


def picture(results, path):
    """Loss on the new text against loss on the old: nearer to the lower left is better."""
    rows = summary(results)
    xs, ys = [r["mean"]["new"] for r in rows], [r["mean"]["old"] for r in rows]
    width, height, left, bottom, top, right = 760, 480, 60, 50, 20, 20
    low_x, high_x, low_y, high_y = min(xs) - 0.1, max(xs) + 0.1, min(ys) - 0.1, max(ys) + 0.1
    at_x = lambda x: left + (x - low_x) / (high_x - low_x) * (width - left - right)
    at_y = lambda y: top + (high_y - y) / (high_y - low_y) * (height - top - bottom)
    svg = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
           f'<rect width="{width}" height="{height}" fill="white"/>']
    for i in range(int(low_x * 4) + 1, int(high_x * 4) + 1):
        svg.append(f'<path d="M{at_x(i / 4):.1f} {top}V{height - bottom}" stroke="#ddd"/>'
                   f'<text x="{at_x(i / 4):.1f}" y="{height - bottom + 16}" text-anchor="middle">{i / 4:g}</text>')
    for i in range(int(low_y * 4) + 1, int(high_y * 4) + 1):
        svg.append(f'<path d="M{left} {at_y(i / 4):.1f}H{width - right}" stroke="#ddd"/>'
                   f'<text x="{left - 6}" y="{at_y(i / 4) + 4:.1f}" text-anchor="end">{i / 4:g}</text>')
    svg.append(f'<text x="{(left + width - right) / 2}" y="{height - 12}" text-anchor="middle">loss on the new text, nats a token</text>')
    svg.append(f'<text transform="translate(14 {(top + height - bottom) / 2}) rotate(-90)" text-anchor="middle">loss on the old text</text>')
    for n, (curve, color) in enumerate(zip(CURVES, ("#555", "#c22", "#26c"))):
        of = [r for r in rows if r["curve"] == curve]
        line = "L".join(f"{at_x(r['mean']['new']):.1f} {at_y(r['mean']['old']):.1f}" for r in of)
        if of:
            svg.append(f'<path d="M{line}" fill="none" stroke="{color}" stroke-width="1.5"/>')
        for r in of:
            x, y = at_x(r["mean"]["new"]), at_y(r["mean"]["old"])
            dx, dy = r["sd"]["new"] * 2 / (high_x - low_x) * (width - left - right), r["sd"]["old"] * 2 / (high_y - low_y) * (height - top - bottom)
            svg.append(f'<ellipse cx="{x:.1f}" cy="{y:.1f}" rx="{max(dx, 0.5):.1f}" ry="{max(dy, 0.5):.1f}" fill="{color}" opacity="0.2"/>'
                       f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{color}"/><text x="{x + 6:.1f}" y="{y - 6:.1f}" fill="{color}">{r["point"]}</text>')
        svg.append(f'<path d="M{width - 260} {top + 14 + 18 * n}h20" stroke="{color}" stroke-width="2"/>'
                   f'<text x="{width - 234}" y="{top + 18 + 18 * n}" fill="{color}">{curve}</text>')
    path.write_text("\n".join(svg) + "\n</svg>\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kindling", required=True)
    parser.add_argument("--config", required=True)
    parser.add_argument("--old", required=True)
    parser.add_argument("--new", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--only", help="only curves whose name begins so")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "results.jsonl"
    results = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    measure(args, results)
    table(results)
    picture(results, args.out / "forgetting.svg")


if __name__ == "__main__":
    main()
