#!/usr/bin/env python3
"""Speed of translation of Troupe beside CTranslate2, alternating in one run; started by scripts/bench translate.

Random weights, 30 tokens in and 30 out, each system with all its settings for the threads, the best taken. Runs of one sentence at
a time go on for at least 300 calls, so that three of them are above the 99th percentile. Medians go to a JSON file and to a section
of --docs.
"""
import argparse

from harness import PEERS, add_common_options, best_and_repeats, measure_all, median, products_ceiling, spread

WORK = {  # name: options of both
    "batch 64, greedy": ["--batch", "64", "--beam", "1"],
    "batch 64, beam 4": ["--batch", "64", "--beam", "4"],
    "one sentence, greedy": ["--batch", "1", "--beam", "1"],
}
GOALS = {"batch 64, greedy": 1.3, "batch 64, beam 4": 1.3, "one sentence, greedy": 1}  # times the peer's rate
SHAPES = {"small": (4, 256, 1024, 8192), "base": (6, 512, 2048, 32000)}  # layers of each stack, width, inner, vocabulary
TOKENS = 30  # of a source and of an output
CALLS = 300  # at least, of a run whose 99th percentile is shown
PEER_PRECISIONS = {"int8": ["int8"], "f32": ["float32"], "bf16": ["bfloat16"]}


def settings(args, model, precision, work):
    common = ["--model", model, "--seconds", args.seconds, "--source", TOKENS, "--target", TOKENS, *WORK[work]]
    alone = "one sentence" in work
    ours = [args.build / "bench_translate", *common, "--precision", precision]
    out = {"troupe": [[*ours, "--threads", threads] for threads in ([1] if alone else [args.threads])]}
    if args.ctranslate2:
        script = [args.ctranslate2, PEERS / "translate_ctranslate2.py", *common, "--threads", args.threads]
        inter = [1] if alone else [1, args.threads]
        out["ctranslate2"] = [[*script, "--precision", name, "--inter", n] for name in PEER_PRECISIONS[precision] for n in inter]
        if alone:
            out["ctranslate2"].append([*script[:-1], 1, "--precision", PEER_PRECISIONS[precision][0]])
    return out


def with_calls(command, tried):
    """The command, with the seconds that CALLS calls take and a fifth more, by the result of a try."""
    at = command.index("--seconds") + 1
    return [*command[:at], max(float(command[at]), 1.2e-3 * CALLS * tried["p50_ms"]), *command[at + 1:]]


def describe(result):
    return f"{result['mode']}, {result['threads']} threads"


def measure(args, model, precision, work):
    more = {"repeated": with_calls} if "one sentence" in work else {}
    results = best_and_repeats(settings(args, model, precision, work), describe, args.repeats, f"{model} {precision} {work}", **more)
    return [{"model": model, "precision": precision, "work": work, "system": system, "setting": describe(values[-1]),
             "version": values[-1].get("version", ""), "tokens_per_s": median(values, "tokens_per_s"),
             "p50_ms": median(values, "p50_ms"), "p99_ms": median(values, "p99_ms"),
             "all_tokens_per_s": [value["tokens_per_s"] for value in values]} for system, values in results.items()]


def ceiling_tokens(row, ceiling, threads):
    """Tokens a second of threads that did nothing but products of weights at the rate of oneDNN's best, or read those weights from
    memory, whichever takes longer; a batch's weights are read once for each token of its sentences. Faster products than oneDNN's, or
    weights that stay in caches, could do more."""
    layers, width, inner, vocabulary = SHAPES[row["model"]]
    encoder = layers * (4 * width * width + 2 * width * inner)
    decoder = layers * (6 * width * width + 2 * width * inner) + vocabulary * width
    across = layers * 2 * width * width  # keys and values of the source
    alone = "one sentence" in row["work"]
    batch, beam, working = 1 if alone else 64, 4 if "beam 4" in row["work"] else 1, 1 if alone else threads
    rate, size = {"int8": (ceiling["int8_gops"], 1), "f32": (ceiling["f32_gflops"], 4),
                  "bf16": (products_ceiling(ceiling, "bf16"), 2)}[row["precision"]]
    products = 2e-9 * TOKENS * batch * (encoder + across + beam * decoder) / (rate / threads)
    reading = 1e-9 * size * (encoder + across + TOKENS * decoder) / (ceiling["read_gb_s"] / working)
    return working * TOKENS * batch / max(products, reading)


def table(rows, ceiling, threads):
    lines = ["| model | type | work | system | setting | tokens/s | min - max | ratio to the peer | goal | "
             "share of oneDNN's rate or memory's | p50 ms | p99 ms |",
             "|---|---|---|---|---|---:|---:|---:|---:|---:|---:|---:|"]
    peers = {(r["model"], r["precision"], r["work"]): r["tokens_per_s"] for r in rows if r["system"] != "troupe"}
    for row in rows:
        peer = peers.get((row["model"], row["precision"], row["work"]))
        ratio = f"{row['tokens_per_s'] / peer:.2f}" if peer and row["system"] == "troupe" else ""
        name = f"{row['system']} {row['version']}".strip()
        goal = f"{GOALS[row['work']]}" if ratio else ""
        share = f"{100 * row['tokens_per_s'] / ceiling_tokens(row, ceiling, threads):.0f} %"
        latency = f"{row['p50_ms']:.1f} | {row['p99_ms']:.1f}" if "one sentence" in row["work"] else " | "
        lines.append(f"| {row['model']} | {row['precision']} | {row['work']} | {name} | {row['setting']} | "
                     f"{row['tokens_per_s']:,.0f} | {spread(row['all_tokens_per_s'])} | {ratio} | {goal} | {share} | {latency} |")
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common_options(parser, "translate", seconds="5")
    parser.add_argument("--models", nargs="+", default=["small", "base"], choices=["small", "base"])
    parser.add_argument("--precisions", nargs="+", default=["int8", "f32"], choices=list(PEER_PRECISIONS))
    parser.add_argument("--work", nargs="+", default=list(WORK), choices=list(WORK))
    parser.add_argument("--ctranslate2", help="python with CTranslate2; without it the peer is left out")
    args = parser.parse_args()
    measure_all(args, "translate", "Speed of translation",
                lambda: [row for model in args.models for precision in args.precisions for work in args.work
                         for row in measure(args, model, precision, work)],
                lambda rows, ceiling: table(rows, ceiling, args.threads))


if __name__ == "__main__":
    main()
