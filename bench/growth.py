#!/usr/bin/env python3
"""How training speed and memory grow with the model and the step, in one process; started by scripts/bench growth.

Each curve changes one thing of `small` (4+4 layers, width 256, 4,096 target tokens a step, 4 slots on two threads): the width, the
layers, the length of sentences (fewer of them, so that a step has as many tokens), the slots. Tables go to a section of --docs and
a JSON file, curves to a picture beside --docs. A run that fails has no row, and --docs stays as it was.
"""
import argparse
import json
import pathlib

from harness import add_common_options, failed_systems, last_json, measure_all, products_ceiling

TOKENS = 4096
CURVES = {  # name: values, options of bench_train
    "width": ([128, 256, 512, 1024], lambda n: ["--width", n]),
    "layers of each stack": ([2, 4, 6, 12, 24], lambda n: ["--layers", n]),
    "tokens of a sentence": ([32, 64, 128, 256, 512, 1024, 2048], lambda n: ["--length", n, "--sentences", TOKENS // n]),
    "slots": ([1, 2, 4, 8, 16, 32, 64], lambda n: ["--slots", n]),
}


def measure(args):
    rows = []
    for name, (values, options) in CURVES.items():
        for dtype in args.dtypes:
            for value in values:
                more = [str(word) for word in options(value)]
                if "--slots" not in more:
                    more += ["--slots", str(min(4, TOKENS // value if name.startswith("tokens") else 4))]
                result = last_json([args.build / "bench_train", "--model", "small", "--dtype", dtype, "--seconds", args.seconds,
                                    "--threads", args.threads, *more])
                if result is None:
                    failed_systems.append(f"{name} {value} {dtype}")
                    continue
                rows.append({"curve": name, "value": value, "dtype": dtype} | {
                    key: result[key] for key in ("tokens_per_s", "step_ms", "gflops", "slot_mb", "peak_mb", "slots")})
                print(f"  {name} {value}, {dtype}: {result['tokens_per_s']:,.0f} tokens/s", flush=True)
    return rows


def table(args, rows, ceiling):
    if not failed_systems:
        draw(args, rows, ceiling)
    lines = []
    for name in CURVES:
        lines += [f"| {name} | type | target tokens/s | ms a step | share of product ceiling | a slot, MB | process, MB |",
                  "|---:|---|---:|---:|---:|---:|---:|"]
        for row in rows:
            if row["curve"] == name:
                share = 100 * row["gflops"] / products_ceiling(ceiling, row["dtype"])
                lines.append(f"| {row['value']:,} | {row['dtype']} | {row['tokens_per_s']:,.0f} | {row['step_ms']:,.0f} | "
                             f"{share:.0f} % | {row['slot_mb']:,.0f} | {row['peak_mb']:,.0f} |")
        lines.append("")
    return lines + [f"![Training speed and memory by width, layers, length and slots]({args.picture.name})"]


def draw(args, rows, ceiling):
    import matplotlib
    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "growth"  # the same picture from the same numbers
    import matplotlib.pyplot as plt
    figure, axes = plt.subplots(4, len(CURVES), figsize=(14, 11), layout="constrained")
    for column, name in enumerate(CURVES):
        speed, step, share, memory = axes[:, column]
        for dtype, colour in (("bf16", "#1f5fa8"), ("f32", "#d1601f")):
            at = [row for row in rows if row["curve"] == name and row["dtype"] == dtype]
            x = [row["value"] for row in at]
            speed.plot(x, [row["tokens_per_s"] for row in at], "o-", color=colour, label=dtype)
            step.plot(x, [row["step_ms"] for row in at], "o-", color=colour)
            share.plot(x, [100 * row["gflops"] / products_ceiling(ceiling, dtype) for row in at], "o-", color=colour)
            memory.plot(x, [row["slot_mb"] for row in at], "o-", color=colour, label=f"a slot, {dtype}")
            memory.plot(x, [row["peak_mb"] for row in at], "s--", color=colour, label=f"process, {dtype}", linewidth=1)
        speed.set(yscale="log", ylabel="target tokens/s")
        step.set(yscale="log", ylabel="ms a step")
        share.set(ylim=(0, 105), ylabel="% of the product ceiling")
        memory.set(yscale="log", xlabel=name, ylabel="MB")
        for axis in axes[:, column]:
            axis.set_xscale("log")
            axis.set_xticks(x, [str(value) for value in x])
            axis.tick_params(which="minor", bottom=False, labelbottom=False)
            axis.grid(alpha=0.3)
    axes[0][0].legend()
    axes[3][0].legend(fontsize=8)
    args.picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.picture, metadata={"Date": None})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common_options(parser, "growth", seconds="4")
    parser.add_argument("--dtypes", nargs="+", default=["bf16", "f32"], choices=["bf16", "f32"])
    parser.add_argument("--picture", type=pathlib.Path, help="default: growth.svg beside --docs")
    args = parser.parse_args()
    args.picture = args.picture or args.docs.parent / "growth.svg"
    measure_all(args, "growth", "How training grows", lambda: measure(args), lambda rows, ceiling: table(args, rows, ceiling),
                rows_are="Each row is one run.")


if __name__ == "__main__":
    main()
