#!/usr/bin/env python3
"""Training speed of Troupe beside PyTorch and TensorFlow, alternating in one run; started by scripts/bench train.

First every setting of every system runs once; then each system's best setting runs `--repeats` times, in turn with
the others, between two measurements of the machine's ceilings. Medians go to a JSON file and to a section of
docs/benchmarks.md.
"""
import argparse

from harness import PEERS, add_common_options, best_and_repeats, measure_all, median


def settings(args, model, dtype):
    """Every setting to try: system -> commands."""
    common = ["--model", model, "--dtype", dtype, "--seconds", args.seconds, "--threads", args.threads]
    ours = [args.build / "bench_train", *common]
    out = {"troupe": [[*ours, "--slots", str(args.threads * k)] for k in (1, 2, 4)],
           "troupe (float sum)": [[*ours, "--sum", "float", "--slots", str(args.threads * k)] for k in (1, 4)]}
    if args.pytorch:
        script = [args.pytorch, PEERS / "train_pytorch.py", *common, "--mode"]
        out["pytorch"] = [[*script, mode] for mode in args.pytorch_modes]
    if args.tensorflow and model != "gpt2":
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
    return rows


def table(rows, ceiling):
    lines = ["| model | type | system | setting | target tokens/s | to Troupe | share of product ceiling | memory, MB |",
             "|---|---|---|---|---:|---:|---:|---:|"]
    ours = {(r["model"], r["dtype"]): r["tokens_per_s"] for r in rows if r["system"] == "troupe"}
    for row in rows:
        ratio = row["tokens_per_s"] / ours[row["model"], row["dtype"]]
        share = row["gflops"] / ceiling[f"{row['dtype']}_gflops"]
        name = f"{row['system']} {row['version']}".strip()
        lines.append(f"| {row['model']} | {row['dtype']} | {name} | {row['setting']} | {row['tokens_per_s']:,.0f} | "
                     f"{ratio:.2f} | {100 * share:.0f} % | {row['peak_mb']:,.0f} |")
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common_options(parser, "train", seconds="10")
    parser.add_argument("--models", nargs="+", default=["small", "base"], choices=["small", "base", "gpt2"])
    parser.add_argument("--dtypes", nargs="+", default=["bf16", "f32"], choices=["bf16", "f32"])
    parser.add_argument("--pytorch", help="python with PyTorch; without it PyTorch is left out")
    parser.add_argument("--tensorflow", help="python with TensorFlow; without it TensorFlow is left out")
    parser.add_argument("--pytorch-modes", nargs="+", default=["eager", "compile", "ddp", "ddp_compile"])
    parser.add_argument("--tensorflow-modes", nargs="+", default=["graph", "xla"])
    args = parser.parse_args()
    measure_all(args, "train", "Training speed",
                lambda: [row for model in args.models for dtype in args.dtypes for row in measure(args, model, dtype)], table)


if __name__ == "__main__":
    main()
