#!/usr/bin/env python3
"""What rounding costs a trained translator: BLEU and chrF of its held-out sets in f32, in the type it was trained in and in 8
bits; started by scripts/bench quality. Needs a model and its dataset, such as those of scripts/demo."""
import argparse
import json
import pathlib
import sys

from harness import CORES, ROOT, add_docs_option, last_json, machine, write_section

PRECISIONS = {"f32": ["--compute", "f32"], "as trained": [], "8 bits": ["--int8"]}


def evaluate(args, split, beam, precision):
    found = last_json([args.build / "troupe", "evaluate", "--checkpoint", args.checkpoint, "--data", args.data, "--json",
                       "--split", split, "--beam", beam, "--threads", args.threads, *PRECISIONS[precision]])
    if not found:
        sys.exit(1)
    return found


def measure(args):
    rows = []
    for split in ("test", "valid"):
        for beam in (1, 4):
            scores = {name: evaluate(args, split, beam, name) for name in PRECISIONS}
            rows.append({"split": split, "beam": beam, "sentences": scores["f32"]["sentences"], "step": scores["f32"]["step"],
                         "half_width": (scores["f32"]["bleu"]["high"] - scores["f32"]["bleu"]["low"]) / 2,
                         **{measure: {name: score[measure]["score"] for name, score in scores.items()} for measure in ("bleu", "chrf")}})
    return rows


def table(rows):
    names = list(PRECISIONS)
    lines = ["| set | search | " + " | ".join(f"BLEU, {name}" for name in names) + " | 8 bits less f32 | "
             + " | ".join(f"chrF, {name}" for name in names) + " |", "|---|---|" + "---:|" * (2 * len(names) + 1)]
    for row in rows:
        search = "greedy" if row["beam"] == 1 else f"beam {row['beam']}"
        lines.append(f"| {row['split']}, {row['sentences']:,} sentences | {search} | "
                     + " | ".join(f"{row['bleu'][name]:.2f}" for name in names) + f" | {row['bleu']['8 bits'] - row['bleu']['f32']:+.2f} | "
                     + " | ".join(f"{row['chrf'][name]:.2f}" for name in names) + " |")
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build" / "release")
    parser.add_argument("--checkpoint", type=pathlib.Path, default=ROOT / "demo" / "run")
    parser.add_argument("--data", type=pathlib.Path, default=ROOT / "demo" / "data")
    parser.add_argument("--threads", type=int, default=CORES)
    parser.add_argument("--json", type=pathlib.Path, help="default: BUILD/bench_quality.json")
    add_docs_option(parser)
    args = parser.parse_args()
    for name in ("checkpoint", "data"):
        if not getattr(args, name).exists():
            sys.exit(f"quality: --{name} {getattr(args, name)} is not there; scripts/demo makes one, or name another")
    rows, here = measure(args), machine()
    (args.json or args.build / "bench_quality.json").write_text(json.dumps({"machine": here, "rows": rows}, indent=1) + "\n")
    text = (f"Measured {here['date']} ({here['cpu']}), step {rows[0]['step']:,}. The 95 % confidence of a BLEU score is "
            f"{max(row['half_width'] for row in rows):.1f} either way.\n\n" + "\n".join(table(rows)))
    print(text)
    write_section(args.docs, "quality", "Quality of rounded translations", text)


if __name__ == "__main__":
    main()
