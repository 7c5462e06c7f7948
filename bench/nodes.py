#!/usr/bin/env python3
"""Two nodes of one thread beside one of two threads, for Troupe, PyTorch and TensorFlow; started by scripts/bench nodes.

Each system against itself, by turns on the same two cores: what is lost between nodes. Troupe's are whole runs of `troupe train` on
made-up pairs; PyTorch's two ranks are DistributedDataParallel over Gloo, TensorFlow's two workers MultiWorkerMirroredStrategy,
both on batches that are made up. Medians go to a JSON file and to a section of docs/benchmarks.md.
"""
import argparse
import pathlib
import statistics
import tempfile

import whole_runs
from harness import PEERS, add_common_options, failed_systems, last_json, measure_all


def runs(args, work, model):
    """system -> (how two nodes work together, a function that runs one node, one that runs two)."""
    def troupe(nodes):
        return lambda: whole_runs.train(args.build / "troupe", work, model, nodes, 2 // nodes, **{"model.compute": args.dtype})

    common = ["--model", model, "--dtype", args.dtype, "--seconds", args.seconds, "--threads", 2]
    out = {"troupe": ("exact sums over shared memory", troupe(1), troupe(2))}
    if args.pytorch:
        def pytorch(mode):
            return lambda: last_json([args.pytorch, PEERS / "train_pytorch.py", *common, "--mode", mode])
        out["pytorch"] = ("DDP, Gloo", pytorch("eager"), pytorch("ddp"))
    if args.tensorflow:
        def tensorflow(workers):
            return lambda: last_json([args.tensorflow, PEERS / "train_tensorflow.py", *common, "--jit", "graph", "--workers", workers])
        out["tensorflow"] = ("MultiWorkerMirroredStrategy", tensorflow(1), tensorflow(2))
    return out


def measure(args, work, model):
    rows = []
    systems = runs(args, work, model)
    rates = {system: {1: [], 2: []} for system in systems}
    version = {}
    for _ in range(args.repeats):
        for system, (_, *of_nodes) in systems.items():
            for nodes, run in enumerate(of_nodes, 1):
                if (result := run()) is not None:
                    rates[system][nodes].append(result["tokens_per_s"])
                    version[system] = result.get("version", "")
                    print(f"  {model} {system}, nodes: {nodes}: {result['tokens_per_s']:,.0f} tokens/s", flush=True)
    for system, (together, *_) in systems.items():
        if len(rates[system][1]) < args.repeats or len(rates[system][2]) < args.repeats:
            failed_systems.append(f"{model} {system}")
            continue
        one, two = (statistics.median(rates[system][nodes]) for nodes in (1, 2))
        rows.append({"model": model, "dtype": args.dtype, "system": system, "version": version[system], "together": together,
                     "one": one, "two": two, "ratio": two / one, "all": rates[system]})
    return rows


def table(rows, _):
    def cell(rates):
        spread = f" ({min(rates):,.0f} to {max(rates):,.0f})" if len(rates) > 1 else ""
        return f"{statistics.median(rates):,.0f}{spread}"
    lines = ["| model | type | system | together | one node of two threads | two nodes of one | ratio |",
             "|---|---|---|---|---:|---:|---:|"]
    return lines + [f"| {row['model']} | {row['dtype']} | {row['system']} {row['version']} | {row['together']} | {cell(row['all'][1])} | "
                    f"{cell(row['all'][2])} | {row['ratio']:.2f} |" for row in rows]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common_options(parser, "nodes", seconds="10")
    parser.add_argument("--models", nargs="+", default=["small", "base"], choices=["small", "base"])
    parser.add_argument("--dtype", default="bf16", choices=["bf16", "f32"])
    parser.add_argument("--pytorch", help="python with PyTorch; without it PyTorch is left out")
    parser.add_argument("--tensorflow", help="python with TensorFlow; without it TensorFlow is left out")
    args = parser.parse_args()
    if args.threads != 2:
        parser.error("this takes two cores: --threads 2")
    with tempfile.TemporaryDirectory(prefix="troupe-nodes-") as folder:
        work = pathlib.Path(folder)
        whole_runs.prepare(args.build / "troupe", work, args.models)
        measure_all(args, "nodes", "One node and two", lambda: [row for model in args.models for row in measure(args, work, model)], table,
                    f"Target tokens a second, the median of {args.repeats} by turns.")


if __name__ == "__main__":
    main()
