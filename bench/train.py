#!/usr/bin/env python3
"""Training speed of Troupe beside PyTorch and TensorFlow, alternating in one run; started by scripts/bench train.

First every setting of every system runs once; then each system's best setting runs `--repeats` times, in turn with
the others, between two measurements of the machine's ceilings. Medians go to a JSON file and to a section of --docs.
"""
import argparse

from harness import (PEERS, SENTENCES, add_common_options, add_training_peers, best_and_repeats, last_json, measure_all, median,
                     products_ceiling, spread)

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
    if args.pytorch and (modes := pytorch_modes(args, model, dtype)):
        script = [args.pytorch, PEERS / "train_pytorch.py", *common, "--mode"]
        out["pytorch"] = [[*script, mode] for mode in modes]
    if args.tensorflow:
        script = [args.tensorflow, PEERS / "train_tensorflow.py", *common, "--jit"]
        out["tensorflow"] = [[*script, jit] for jit in args.tensorflow_modes]
    return out


def pytorch_modes(args, model, dtype):
    """Those asked for; not DDP where its ranks of one thread cannot have equal shares of a step."""
    if SENTENCES[model] % args.threads == 0:
        return args.pytorch_modes
    print(f"  {model} {dtype} pytorch: without DDP, as {args.threads} ranks do not divide {SENTENCES[model]} sentences", flush=True)
    return [mode for mode in args.pytorch_modes if not mode.startswith("ddp")]


def describe(result):
    slots = f", {result['slots']} slots" if "slots" in result else ""
    return f"{result['mode']}, {result['threads']} threads{slots}"


def measure(args, model, dtype):
    """A row a system, with the median of its best setting's repeats."""
    results = best_and_repeats(settings(args, model, dtype), describe, args.repeats, f"{model} {dtype}")
    rows = [{"model": model, "dtype": dtype, "system": system, "setting": describe(values[-1]),
             "version": values[-1].get("version", ""), "tokens_per_s": median(values, "tokens_per_s"), "peak_mb": median(values, "peak_mb"),
             **{key: values[-1][key] for key in ("least_mb", "least_mb_setting")},
             "all_tokens_per_s": [value["tokens_per_s"] for value in values]} for system, values in results.items()]
    flops = next((r["gflop_a_step"] / (r["step_ms"] * 1e-3 * r["tokens_per_s"]) for values in results.values()
                  for r in values if "gflop_a_step" in r), None)  # products a target token, the same for all; Troupe says it
    for row in rows:
        row["gflops"] = flops and round(flops * row["tokens_per_s"], 1)
        if row["system"] == "troupe":
            row["step_ms"], row["profile_ms"] = step_profile(results["troupe"])
            row["ceiling"] = step_ceiling(args, model, dtype, results["troupe"][-1]["slots"])
    return rows


def step_profile(results):
    """Milliseconds of a step, the median of its runs, and of its parts: those of the run nearest to it, scaled to it."""
    step_ms = median(results, "step_ms")
    nearest = min(results, key=lambda result: abs(result["step_ms"] - step_ms))
    return round(step_ms, 2), {part: round(ms * step_ms / nearest["step_ms"], 2) for part, ms in nearest["profile_ms"].items()}


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
        beside = ours.get((row["model"], row["dtype"]))  # none: Troupe has failed
        ratio = f"{row['tokens_per_s'] / beside:.2f}" if beside else ""
        share = f"{100 * row['gflops'] / products_ceiling(ceiling, row['dtype']):.0f} %" if row["gflops"] else ""
        name = f"{row['system']} {row['version']}".strip()
        lines.append(f"| {row['model']} | {row['dtype']} | {name} | {row['setting']} | {row['tokens_per_s']:,.0f} | "
                     f"{spread(row['all_tokens_per_s'])} | {ratio} | {share} | {memory(row)} |")
    lines += ["", "The memory of a peer is that of whichever of its settings takes least, named where it is not the row's."]
    return lines + beside_peers(rows) + step_ceilings(rows)


def memory(row):
    if row["system"].startswith("troupe") or row["least_mb"] >= row["peak_mb"] or row["least_mb_setting"] == row["setting"]:
        return f"{row['peak_mb']:,.0f}"
    return f"{row['least_mb']:,.0f} ({row['least_mb_setting']})"


def beside_peers(rows):
    """The ratio to the best peer, and what it should be."""
    lines = ["", "| model | type | best peer | Troupe to it | goal |", "|---|---|---|---:|---:|"]
    for (model, dtype), goal in GOALS.items():
        here = [row for row in rows if (row["model"], row["dtype"]) == (model, dtype)]
        peers = [row for row in here if not row["system"].startswith("troupe")]
        ours = next((row for row in here if row["system"] == "troupe"), None)
        if peers and ours:
            best = max(peers, key=lambda row: row["tokens_per_s"])
            lines.append(f"| {model} | {dtype} | {best['system']} | {ours['tokens_per_s'] / best['tokens_per_s']:.2f} | {goal} |")
    return lines if len(lines) > 3 else []


def step_ceilings(rows):
    """Where the time of a step of Troupe goes, beside an estimate of what it must take: each part at what the machine reaches at that
    very shape."""
    parts = {  # name: (the least, what took time)
        "linear layers": ("linear_ms", ["linear"]), "attention": ("attention_ms", ["attention"]),
        "vocabulary": ("vocabulary_ms", ["vocabulary"]), "norms, activations": ("activations_ms", ["pointwise"]),
        "sums": ("sums_ms", ["folding", "rounding"]), "update, packing": ("update_ms", ["update", "packing"]),
        "waiting": (None, ["waiting"])}
    lines = ["", "An estimate of the least time that a step could take, in ms, with products as fast as the faster of oneDNN and Troupe at "
             "each shape (attention's by oneDNN) and bytes as fast as memory is read or copied, whichever is faster; and the time that it "
             "took, of a thread: the median of the runs, and its parts by the run nearest to it, scaled to it.", "",
             "| model | type | | " + " | ".join(parts) + " | step | least to took |", "|---|---|---|" + "---:|" * (len(parts) + 2)]
    for row in rows:
        if least := row.get("ceiling"):
            took, name = row["profile_ms"], f"| {row['model']} | {row['dtype']} |"
            lines.append(f"{name} least | " + " | ".join(f"{least[key]:,.0f}" if key else "" for key, _ in parts.values())
                         + f" | {least['step_ms']:,.0f} | |")
            lines.append(f"{name} took | " + " | ".join(f"{sum(took[key] for key in keys):,.0f}" for _, keys in parts.values())
                         + f" | {row['step_ms']:,.0f} | {100 * least['step_ms'] / row['step_ms']:.0f} % |")
    return lines if len(lines) > 5 else []


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
