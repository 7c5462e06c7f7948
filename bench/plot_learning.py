#!/usr/bin/env python3
"""Draws the curves of two runs of one job on the same data: `troupe train --json` and train_translation_pytorch.py.

Example: plot_learning.py --troupe run.jsonl --pytorch curve.json --out docs/learning.svg
Needs matplotlib from PyPI.
"""
import argparse
import json
import pathlib

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "learning"  # the same picture from the same numbers
import matplotlib.pyplot as plt


def troupe_curve(path):
    reports = [json.loads(line) for line in path.read_text().splitlines() if line.startswith("{")]
    reports = [report for report in reports if "target_tokens" in report and "loss" in report]
    train = [(r["target_tokens"] / 1e6, r["loss"]) for r in reports]
    # An evaluation is of the weights before its step; it is reported a little later.
    per_step = reports[-1]["target_tokens"] / reports[-1]["step"] / 1e6
    valid = {r["validation_step"]: r["validation_loss"] for r in reports if r.get("validation_loss", 0) > 0}
    return train, [(step * per_step, loss) for step, loss in sorted(valid.items())]


def pytorch_curve(path):
    curve = json.loads(path.read_text())["curve"]
    return ([(p["tokens"] / 1e6, p["loss"]) for p in curve], [(p["tokens"] / 1e6, p["valid_nll"]) for p in curve])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--troupe", required=True, type=pathlib.Path)
    parser.add_argument("--pytorch", required=True, type=pathlib.Path)
    parser.add_argument("--out", required=True, type=pathlib.Path)
    args = parser.parse_args()
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    runs = [("Troupe", troupe_curve(args.troupe), "#1f5fa8", "-"),
            ("PyTorch", pytorch_curve(args.pytorch), "#d1601f", "--")]
    for name, curves, colour, style in runs:
        for axis, curve in zip(axes, curves):
            axis.plot(*zip(*curve), style, color=colour, label=name, linewidth=1.6)
    for axis, title in zip(axes, ("training loss (label smoothing 0.1)", "held-out loss (without smoothing)")):
        axis.set(title=title, xlabel="million target tokens", ylabel="nats a token", ylim=(1, 7))
        axis.grid(alpha=0.3)
        axis.legend()
    figure.savefig(args.out, metadata={"Date": None})


if __name__ == "__main__":
    main()
