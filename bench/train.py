#!/usr/bin/env python3
"""Training speed of Troupe beside PyTorch and TensorFlow, alternating in one run; started by scripts/bench train.

First every setting of every system runs once; then each system's best setting runs `--repeats` times, in turn with
the others, between two measurements of the machine's ceilings. Medians go to a JSON file and to a section of
docs/benchmarks.md.
"""
import argparse

from harness import (PEERS, add_common_options, add_training_peers, best_and_repeats, last_json, measure_all, median, products_ceiling,
                     spread)

SENTENCES = {"small": 64, "base": 16, "gpt2": 4}  # a step
GOALS = {("small", "bf16"): 1.6, ("small", "f32"): 1.4, ("base", "bf16"): 1.5, ("base", "f32"): 1.25, ("gpt2", "bf16"): 1.4,
         ("gpt2", "f32"): 1.2}  # times the best peer's rate


def settings(args, model, dtype):
    """Every setting to try: system -> commands."""
    slots = ([args.threads * k for k in (1, 2, 4) if SENTENCES[model] % (args.threads * k) == 0]
             or [SENTENCES[model]])  # more threads than sentences
    common = ["--model", model, "--dtype", dtype, "--seconds", args.seconds, "--threads", args.threads]
    ours = [args.build / "bench_train", *common]
    out = {"troupe": [[*ours, "--slots", n] for n in slots],
           "troupe (float sum)": [[*ours, "--sum", "float", "--slots", n] for n in slots]}
    if args.pytorch:
        script = [args.pytorch, PEERS / "train_pytorch.py", *common, "--mode"]
        out["pytorch"] = [[*script, mode] for mode in args.pytorch_modes]
    if args.tensorflow:
        script = [args.tensorflow, PEERS / "train_tensorflow.py", *common, "--jit"]
        out["tensorflow"] = [[*script, jit] for jit in args.tensorflow_modes]
    return out


def describe(result):
    slots = f", {result['slots']} slots" if "slots" in result else ""
    return f"{result['mode']}, {result['threads']} threads{slots}"


def measure(args, model, dtype):
    """A row a system, with the median of its best setting's repeats."""
    results = best_and_repeats(settings(args, model, dtype), describe, args.repeats, f"{model} {dtype}")
    rows = [{"model": model, "dtype": dtype, "system": system, "setting": describe(values[-1]),
             "version": values[-1].get("version", ""), "tokens_per_s": median(values, "tokens_per_s"), "peak_mb": median(values, "peak_mb"),
             "all_tokens_per_s": [value["tokens_per_s"] for value in values]} for system, values in results.items()]
    flops = next(r["gflop_a_step"] / (r["step_ms"] * 1e-3 * r["tokens_per_s"]) for values in results.values()
                 for r in values if "gflop_a_step" in r)  # products a target token, the same for all systems
    for row in rows:
        row["gflops"] = round(flops * row["tokens_per_s"], 1)
        if row["system"] == "troupe":
            slots = results["troupe"][-1]["slots"]
            middle = sorted(results["troupe"], key=lambda result: result["step_ms"])[len(results["troupe"]) // 2]
            row["step_ms"], row["profile_ms"] = middle["step_ms"], middle["profile_ms"]
            row["ceiling"] = step_ceiling(args, model, dtype, slots)
    return rows


def step_ceiling(args, model, dtype, slots):
    """Milliseconds of a step's parts at the machine's best, the smaller of two measurements of each."""
    command = [args.build / "bench_step_ceiling", "--model", model, "--dtype", dtype, "--threads", args.threads, "--slots", slots]
    measured = [found for _ in range(2) if (found := last_json(command))]
    if not measured:
        return None
    least = {key: min(found[key] for found in measured) for key in measured[0] if key.endswith("_ms")}
    least["step_ms"] = sum(value for key, value in least.items() if key != "step_ms")
    return least


def table(rows, ceiling):
    lines = ["| model | type | system | setting | target tokens/s | min - max | to Troupe | share of product ceiling | memory, MB |",
             "|---|---|---|---|---:|---:|---:|---:|---:|"]
    ours = {(r["model"], r["dtype"]): r["tokens_per_s"] for r in rows if r["system"] == "troupe"}
    for row in rows:
        ratio = row["tokens_per_s"] / ours[row["model"], row["dtype"]]
        share = row["gflops"] / products_ceiling(ceiling, row["dtype"])
        name = f"{row['system']} {row['version']}".strip()
        lines.append(f"| {row['model']} | {row['dtype']} | {name} | {row['setting']} | {row['tokens_per_s']:,.0f} | "
                     f"{spread(row['all_tokens_per_s'])} | {ratio:.2f} | {100 * share:.0f} % | {row['peak_mb']:,.0f} |")
    return lines + beside_peers(rows) + step_ceilings(rows)


def beside_peers(rows):
    """The ratio to the best peer, and what it should be."""
    lines = ["", "| model | type | best peer | Troupe to it | goal |", "|---|---|---|---:|---:|"]
    for (model, dtype), goal in GOALS.items():
        here = [row for row in rows if (row["model"], row["dtype"]) == (model, dtype)]
        peers = [row for row in here if not row["system"].startswith("troupe")]
        if peers:
            best = max(peers, key=lambda row: row["tokens_per_s"])
            ours = next(row for row in here if row["system"] == "troupe")
            lines.append(f"| {model} | {dtype} | {best['system']} | {ours['tokens_per_s'] / best['tokens_per_s']:.2f} | {goal} |")
    return lines if len(lines) > 3 else []


def step_ceilings(rows):
    """Where the time of a step of Troupe goes, beside what it must take: each part at what the machine reaches at that very shape."""
    parts = {  # name: (the least, what took time)
        "linear layers": ("linear_ms", ["linear"]), "attention": ("attention_ms", ["attention"]),
        "vocabulary": ("vocabulary_ms", ["vocabulary"]), "norms, activations": ("activations_ms", ["pointwise"]),
        "sums": ("sums_ms", ["folding", "rounding"]), "update, packing": ("update_ms", ["update", "packing"]),
        "waiting": (None, ["waiting"])}
    lines = ["", "The least time that a step could take, in ms, with products as fast as the faster of oneDNN and Troupe at each shape "
             "(attention's by oneDNN) and bytes as fast as memory, and the time that it took, of a thread.", "",
             "| model | type | | " + " | ".join(parts) + " | step | least to took |", "|---|---|---|" + "---:|" * (len(parts) + 2)]
    for row in rows:
        if least := row.get("ceiling"):
            took, name = row["profile_ms"], f"| {row['model']} | {row['dtype']} |"
            lines.append(f"{name} least | " + " | ".join(f"{least[key]:,.0f}" if key else "" for key, _ in parts.values())
                         + f" | {least['step_ms']:,.0f} | |")
            lines.append(f"{name} took | " + " | ".join(f"{sum(took[key] for key in keys):,.0f}" for _, keys in parts.values())
                         + f" | {row['step_ms']:,.0f} | {100 * least['step_ms'] / row['step_ms']:.0f} % |")
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common_options(parser, "train", seconds="10")
    parser.add_argument("--models", nargs="+", default=["small", "base", "gpt2"], choices=["small", "base", "gpt2"])
    parser.add_argument("--dtypes", nargs="+", default=["bf16", "f32"], choices=["bf16", "f32"])
    add_training_peers(parser)
    parser.add_argument("--pytorch-modes", nargs="+", default=["eager", "compile", "ddp", "ddp_compile"])
    parser.add_argument("--tensorflow-modes", nargs="+", default=["graph", "xla"])
    args = parser.parse_args()
    measure_all(args, "train", "Training speed",
                lambda: [row for model in args.models for dtype in args.dtypes for row in measure(args, model, dtype)], table)


if __name__ == "__main__":
    main()
