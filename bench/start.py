#!/usr/bin/env python3
"""How long `troupe translate` takes from its start to the first word, and its memory, beside CTranslate2 in Python, alternating
in one run; started by scripts/bench start.

Both have a model of `base`'s shape in 8 bits: Troupe one that `troupe train` made from made-up text in one step and `troupe
export --int8` wrote, CTranslate2 one of random weights. To the first word: one sentence of ten words, one token of output.
Memory: the largest resident set while 64 sentences of 20 words are translated greedily into 30 tokens each. One thread. Medians
go to a JSON file and to a section of docs/benchmarks.md.
"""
import argparse
import pathlib
import statistics
import sys
import tempfile

from harness import PEERS, ROOT, add_common_options, failed_systems, measure_all, run
from made_up import write_pairs


def command(words):
    if run(words) is None:
        sys.exit(1)


def export_model(args, work):
    troupe = args.build / "troupe"
    write_pairs(work / "pairs.tsv", 20000, 60000, 40)
    command([troupe, "prepare", "--tsv", work / "pairs.tsv", "--out", work / "data", "--vocabulary", 32000, "--valid", 100,
             "--test", 100])
    command([troupe, "train", "--job", ROOT / "examples" / "jobs" / "base.toml", "--data", work / "data", "--out", work / "run",
             "--steps", 1, "--set", "training.slots=1", "--set", "evaluation.every=0"])
    command([troupe, "export", "--checkpoint", work / "run", "--int8", "--out", work / "model"])
    return work / "model"


def rows(args):
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        model = export_model(args, work)
        words = [line.split("\t")[0].split() for line in (work / "pairs.tsv").read_text().splitlines()]
        sentence = " ".join(next(line for line in words if len(line) >= 20)[:10]) + "\n"
        text = "".join(" ".join((line * 30)[:20]) + "\n" for line in words[:64])
        ours = [args.build / "troupe", "translate", "--checkpoint", model, "--threads", 1, "--max-tokens"]
        systems = {"troupe": ([*ours, 1], [*ours, 30])}
        if args.ctranslate2:
            script = [args.ctranslate2, PEERS / "start_ctranslate2.py", "--folder", work / "peer"]
            command([*script, "--save"])
            systems["ctranslate2"] = ([*script, "--tokens", 1], [*script, "--tokens", 30])
        found = {system: [] for system in systems}
        for _ in range(args.repeats):
            for system, (start, work_command) in systems.items():
                first, whole = run(start, sentence), run(work_command, text)
                if first and whole:
                    found[system].append((first[1] * 1e3, first[3], whole[2] * 1e3, whole[3]))
    failed_systems.extend(system for system, values in found.items() if not values)
    return [{"system": system, **{key: statistics.median(value[i] for value in values)
                                  for i, key in enumerate(("first_ms", "first_mb", "whole_ms", "whole_mb"))},
             "all_first_ms": [round(value[0], 1) for value in values]} for system, values in found.items() if values]


def table(found, _):
    lines = ["| system | ms to the first word | memory, MB | 64 sentences, ms with the start | memory, MB |",
             "|---|---:|---:|---:|---:|"]
    return lines + [f"| {row['system']} | {row['first_ms']:.0f} | {row['first_mb']:.0f} | {row['whole_ms']:.0f} | "
                    f"{row['whole_mb']:.0f} |" for row in found]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common_options(parser, "start", repeats=20)
    parser.add_argument("--ctranslate2", help="python with CTranslate2; without it the peer is left out")
    args = parser.parse_args()
    measure_all(args, "start", "Start of a translation", lambda: rows(args), table)


if __name__ == "__main__":
    main()
