#!/usr/bin/env python3
"""How long `troupe translate` takes from its start to the first word, and its memory, beside CTranslate2 in Python, alternating
in one run; started by scripts/bench start.

Both have a model of the same shape: Troupe one that `troupe train` made from made-up text in one step and `troupe export`
wrote, CTranslate2 one of random weights. Sentences are of the most frequent words, each of which is a token of both. To the
first word: one sentence of ten words, one token of output. Memory: the largest resident set while 64 sentences of 20 words are
translated into 30 tokens each, greedily and with a beam of 4. One thread. Medians go to a JSON file and to a section of --docs.
"""
import argparse
import collections
import pathlib
import random
import statistics
import sys
import tempfile

from harness import PEERS, ROOT, add_common_options, failed_systems, measure_all, run
from made_up import write_pairs


VOCABULARY = {"small": 8192, "base": 32000}
PRECISIONS = {"int8": ["--int8"], "f32": ["--compute", "f32"]}  # options of `troupe export`


def command(words):
    if run(words) is None:
        sys.exit(1)


def train_model(args, work, model):
    command([args.build / "troupe", "train", "--job", ROOT / "examples" / "jobs" / f"{model}.toml", "--data", work / model / "data",
             "--out", work / model / "run", "--steps", 1, "--set", "training.slots=1", "--set", "evaluation.every=0"])


def systems_of(args, work, model, precision):
    """system -> command, to which the number of tokens and other words are added."""
    exported = work / model / precision
    command([args.build / "troupe", "export", "--checkpoint", work / model / "run", "--out", exported, *PRECISIONS[precision]])
    systems = {"troupe": [args.build / "troupe", "translate", "--checkpoint", exported, "--threads", 1, "--max-tokens"]}
    if args.ctranslate2:
        script = [args.ctranslate2, PEERS / "start_ctranslate2.py", "--folder", work / model / f"peer-{precision}", "--model", model,
                  "--precision", {"int8": "int8", "f32": "float32"}[precision]]
        command([*script, "--save"])
        systems["ctranslate2"] = [*script, "--tokens"]
    return systems


def measure(args, work, model, precision, sentences):
    systems = systems_of(args, work, model, precision)
    sentence, text = " ".join(sentences[0][:10]) + "\n", "".join(" ".join(words) + "\n" for words in sentences)
    found = {system: [] for system in systems}
    for _ in range(args.repeats):
        for system, words in systems.items():
            runs = run([*words, 1], sentence), run([*words, 30], text), run([*words, 30, "--beam", 4], text)
            if all(runs):
                first, greedy, beam = runs
                found[system].append((first[1] * 1e3, first[3], greedy[2] * 1e3, greedy[3], beam[2] * 1e3, beam[3]))
    failed_systems.extend(f"{model} {precision} {system}" for system, values in found.items() if not values)
    return [{"model": model, "precision": precision, "system": system, "all_first_ms": [round(value[0], 1) for value in values],
             **{key: statistics.median(value[i] for value in values)
                for i, key in enumerate(("first_ms", "first_mb", "greedy_ms", "greedy_mb", "beam_ms", "beam_mb"))}}
            for system, values in found.items() if values]


def rows(args):
    found = []
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        write_pairs(work / "pairs.tsv", 20000, 60000, 40)
        count = collections.Counter(word for line in open(work / "pairs.tsv") for word in line.split("\t")[0].split())
        frequent = [word for word, _ in count.most_common(500)]
        draw = random.Random(1)
        sentences = [draw.choices(frequent, k=20) for _ in range(64)]
        for model in args.models:
            command([args.build / "troupe", "prepare", "--tsv", work / "pairs.tsv", "--out", work / model / "data", "--vocabulary",
                     VOCABULARY[model], "--valid", 100, "--test", 100])
            train_model(args, work, model)
            for precision in args.precisions:
                found += measure(args, work, model, precision, sentences)
    return found


def table(found, _):
    lines = ["| model | type | system | ms to the first word | memory, MB | 64 sentences greedily, ms with the start | memory, MB | "
             "with a beam of 4, ms | memory, MB |", "|---|---|---|" + "---:|" * 6]
    return lines + [f"| {row['model']} | {row['precision']} | {row['system']} | {row['first_ms']:.0f} | {row['first_mb']:.0f} | "
                    f"{row['greedy_ms']:,.0f} | {row['greedy_mb']:.0f} | {row['beam_ms']:,.0f} | {row['beam_mb']:.0f} |" for row in found]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common_options(parser, "start", repeats=10)
    parser.add_argument("--models", nargs="+", default=["small", "base"], choices=list(VOCABULARY))
    parser.add_argument("--precisions", nargs="+", default=["int8", "f32"], choices=list(PRECISIONS))
    parser.add_argument("--ctranslate2", help="python with CTranslate2; without it the peer is left out")
    args = parser.parse_args()
    measure_all(args, "start", "Start of a translation", lambda: rows(args), table)


if __name__ == "__main__":
    main()
