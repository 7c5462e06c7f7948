#!/usr/bin/env python3
"""Speed of `troupe prepare` beside SentencePiece's own trainer and encoder, alternating in one run; started by
scripts/bench prepare.

Both train a BPE tokenizer on as many sentences of the same text and encode all of it, with as many threads; Troupe also cleans the
text, leaves out duplicates, splits, sorts, packs and writes the dataset. MB are of text as it is read. Medians go to a JSON file
and to a section of --docs.
"""
import argparse
import pathlib
import shutil
import statistics
import sys
import tempfile

from harness import PEERS, add_common_options, last_json, measure_all, run
from made_up import write_pairs

SENTENCES = 100_000  # the tokenizer is trained on


def troupe(args, text, folder, model):
    out = folder / "dataset"
    shutil.rmtree(out, ignore_errors=True)
    more = ["--tokenizer-file", model] if model else ["--vocabulary", args.vocabulary, "--tokenizer-sentences", SENTENCES]
    done = run([args.build / "troupe", "prepare", "--tsv", text, "--out", out, "--threads", args.threads, *more])
    if done is None:
        sys.exit("bench/prepare: troupe prepare has failed")
    return {"seconds": done[2], "peak_mb": done[3]}


def sentencepiece(args, text, folder, model):
    more = ["--model", model] if model else ["--vocabulary", args.vocabulary, "--sentences", SENTENCES]
    result = last_json([args.sentencepiece, PEERS / "prepare_sentencepiece.py", "--tsv", text, "--threads", args.threads,
                        "--out", folder / "peer", *more])
    if result is None:
        sys.exit("bench/prepare: the peer has failed")
    return result


def measure(args):
    rows = []
    with tempfile.TemporaryDirectory(prefix="troupe-prepare-") as name:
        folder = pathlib.Path(name)
        text = args.tsv or folder / "pairs.tsv"
        if not args.tsv:
            write_pairs(text, args.pairs, 60000, 20)
        mb = text.stat().st_size / 1e6
        sentencepiece(args, text, folder, None)  # leaves the tokenizer that both encode with
        for work, model in (("train a tokenizer, encode", None), ("encode", folder / "peer.model")):
            systems = {"troupe": troupe} | ({"sentencepiece": sentencepiece} if args.sentencepiece else {})
            results = {system: [] for system in systems}
            for _ in range(args.repeats):
                for system, function in systems.items():
                    results[system].append(function(args, text, folder, model))
                    print(f"  {work}, {system}: {mb / results[system][-1]['seconds']:.1f} MB/s", flush=True)
            for system, values in results.items():
                seconds = statistics.median(value["seconds"] for value in values)
                rows.append({"work": work, "system": system, "version": values[-1].get("version", ""), "mb": mb,
                             "seconds": seconds, "mb_per_s": mb / seconds, "all_seconds": [v["seconds"] for v in values],
                             "peak_mb": statistics.median(value["peak_mb"] for value in values)})
    return rows


def table(rows, _):
    lines = ["| work | system | MB of text | s | MB/s | ratio to the peer | memory, MB |", "|---|---|---:|---:|---:|---:|---:|"]
    peers = {row["work"]: row["mb_per_s"] for row in rows if row["system"] != "troupe"}
    for row in rows:
        peer = peers.get(row["work"])
        ratio = f"{row['mb_per_s'] / peer:.2f}" if peer and row["system"] == "troupe" else ""
        lines.append(f"| {row['work']} | {row['system']} {row['version']} | {row['mb']:.0f} | {row['seconds']:.1f} | "
                     f"{row['mb_per_s']:.1f} | {ratio} | {row['peak_mb']:,.0f} |")
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common_options(parser, "prepare")
    parser.add_argument("--tsv", type=pathlib.Path, help="pairs of text instead of made-up ones")
    parser.add_argument("--pairs", type=int, default=250_000, help="of the made-up text")
    parser.add_argument("--vocabulary", type=int, default=8192)
    parser.add_argument("--sentencepiece", required=True, help="python with SentencePiece")
    args = parser.parse_args()
    measure_all(args, "prepare", "Preparing text", lambda: measure(args), table)


if __name__ == "__main__":
    main()
