#!/usr/bin/env python3
"""Nodes of one thread each beside one node of as many threads, for Troupe, PyTorch and TensorFlow; started by scripts/bench nodes.

Each system against itself, by turns on the same cores: what is lost between nodes. Troupe's are whole runs of `troupe train` on made-up
pairs; PyTorch's ranks are DistributedDataParallel over Gloo, TensorFlow's workers MultiWorkerMirroredStrategy, both on batches
that are made up. A step of Troupe has a multiple of the threads as slots; a peer whose step they do not divide is left out. Medians
go to a JSON file and to a section of --docs.
"""
import argparse
import pathlib
import tempfile

import whole_runs
from harness import (PEERS, SENTENCES, add_common_options, add_training_peers, failed_systems, last_json, measure_all, median, runs_are,
                     spread)


def runs(args, work, model):
    """system -> (how nodes work together, a function that runs one node, one that runs as many as there are threads)."""
    def troupe(nodes):
        return lambda: whole_runs.train(args.build / "troupe", work, model, nodes, args.threads // nodes,
                                        **{"model.compute": args.dtype, "training.slots": whole_runs.slots(args.threads)})

    def peer(python, script, *words):
        return lambda: last_json([python, PEERS / script, "--model", model, "--dtype", args.dtype, "--seconds", args.seconds,
                                  "--threads", args.threads, *words])

    out = {"troupe": ("exact sums over shared memory", troupe(1), troupe(args.threads))}
    if SENTENCES[model] % args.threads:
        print(f"  {model}: without peers, as {args.threads} ranks of one thread do not divide {SENTENCES[model]} sentences", flush=True)
        return out
    if args.pytorch:
        out["pytorch"] = ("DDP, Gloo", *(peer(args.pytorch, "train_pytorch.py", "--mode", mode) for mode in ("eager", "ddp")))
    if args.tensorflow:
        out["tensorflow"] = ("MultiWorkerMirroredStrategy",
                             *(peer(args.tensorflow, "train_tensorflow.py", "--jit", "graph", "--workers", workers)
                               for workers in (1, args.threads)))
    return out


def measure(args, work, model):
    systems = runs(args, work, model)
    results = {system: {"one": [], "several": []} for system in systems}
    for _ in range(args.repeats):
        for system, (_, *functions) in systems.items():
            for nodes, run in zip(("one", "several"), functions):
                if (result := run()) is not None:
                    results[system][nodes].append(result)
                    print(f"  {model} {system}, nodes: {nodes}: {result['tokens_per_s']:,.0f} tokens/s", flush=True)
    whole = {system: of for system, of in results.items() if all(len(values) == args.repeats for values in of.values())}
    failed_systems.extend(f"{model} {system}" for system in systems if system not in whole)
    return [{"model": model, "dtype": args.dtype, "system": system, "version": of["one"][0].get("version", ""),
             "together": systems[system][0], "threads": args.threads,
             **{nodes: median(values, "tokens_per_s") for nodes, values in of.items()},
             **{f"all_{nodes}": [value["tokens_per_s"] for value in values] for nodes, values in of.items()}}
            for system, of in whole.items()]


def table(rows, _):
    threads = rows[0]["threads"] if rows else 0
    lines = [f"| model | type | system | together | one of {threads} threads | min - max | {threads} of one | min - max | ratio |",
             "|---|---|---|---|---:|---:|---:|---:|---:|"]
    return lines + [f"| {row['model']} | {row['dtype']} | {(row['system'] + ' ' + row['version']).strip()} | {row['together']} | "
                    f"{row['one']:,.0f} | {spread(row['all_one'])} | {row['several']:,.0f} | {spread(row['all_several'])} | "
                    f"{row['several'] / row['one']:.2f} |" for row in rows]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common_options(parser, "nodes", seconds="10")
    add_training_peers(parser)
    parser.add_argument("--models", nargs="+", default=["small", "base"], choices=["small", "base"])
    parser.add_argument("--dtype", default="bf16", choices=["bf16", "f32"])
    args = parser.parse_args()
    if args.threads < 2:
        parser.error("--threads must be at least 2: so many nodes of one thread are measured")
    with tempfile.TemporaryDirectory(prefix="troupe-nodes-") as folder:
        work = pathlib.Path(folder)
        whole_runs.prepare(args.build / "troupe", work, args.models)
        measure_all(args, "nodes", "One node and several",
                    lambda: [row for model in args.models for row in measure(args, work, model)], table,
                    f"Target tokens a second, {runs_are(args.repeats)}, by turns.")


if __name__ == "__main__":
    main()
