#!/usr/bin/env python3
"""Trains the model of a job file in PyTorch on a dataset of `troupe prepare`: the same packs in the same order, the
same batches, schedule, optimizer and initialisation (other random numbers). Writes the loss curve and, at the end,
BLEU and chrF of the test set, greedy and with beam 4, to a JSON file.

Example: train_translation_pytorch.py --job examples/jobs/small.toml --data DIR --out curve.json --minutes 30
Needs torch, numpy, sentencepiece and sacrebleu from PyPI.
"""
import argparse
import contextlib
import json
import math
import pathlib
import time
import tomllib

import sacrebleu
import sentencepiece
import torch

from transformer_pytorch import Config, Transformer, parameter_groups
from translate_pytorch import translate
from troupe_dataset import Dataset


def learning_rate(schedule, steps, step):
    """model/schedule.cpp; the fields' defaults are those of a job file."""
    peak, warmup, floor = schedule["learning_rate"], schedule.get("warmup_steps", 400), schedule.get("floor", 0.0)
    total = schedule.get("total_steps", 0) or steps
    if step < warmup:
        return peak * (step + 1) / warmup
    kind = schedule.get("kind", "inverse_sqrt")
    if kind == "inverse_sqrt":
        return peak * math.sqrt(max(warmup, 1) / (step + 1))
    if kind == "cosine":
        share = min(step - warmup, total - warmup) / max(1, total - warmup)
        return peak * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * share)))
    if kind == "warmup_stable_decay":
        decay = schedule.get("decay_steps", 0) or max(1, total // 5)
        left = max(total - step, 0)
        return peak if left >= decay else peak * (floor + (1 - floor) * left / decay)
    return peak


def make_model(job, dataset):
    m = job["model"]
    return Transformer(Config(dataset.manifest["vocabulary"], m["width"], m["inner"], m["heads"], m["encoder_layers"],
                              m["decoder_layers"], m.get("max_length", 256), m.get("activation", "relu"),
                              m.get("positions", "sinusoidal"), m.get("scale_embedding", True),
                              m.get("dropout", 0.1)))


def slot_loss(model, arrays, smoothing, bf16):
    """Sum of the smoothed losses of one slot."""
    source, lengths, target_in, target_out = (torch.from_numpy(array) for array in arrays)
    padded = bool((lengths < source.shape[1]).any())
    with torch.autocast("cpu", torch.bfloat16) if bf16 else contextlib.nullcontext():
        return model(source, target_in, target_out, lengths if padded else None, smoothing, "sum")


def evaluate(model, dataset, packs_max, bf16):
    """Mean loss without smoothing over the first packs of the validation set."""
    model.eval()
    loss = tokens = 0
    with torch.no_grad():
        for pack in range(min(packs_max, dataset.packs("valid"))):
            *arrays, count = dataset.batch("valid", pack)
            loss += slot_loss(model, arrays, 0.0, bf16).item()
            tokens += count
    model.train()
    return loss / max(tokens, 1)


def train(args, job, dataset, model):
    """Returns the curve: a record every --every steps."""
    training, optimizer_job = job["training"], job.get("optimizer", {})
    smoothing, clip = optimizer_job.get("label_smoothing", 0.1), optimizer_job.get("clip_norm", 1.0)
    steps, slots, seed = training["steps"], training["slots"], training.get("seed", 1)
    bf16 = job["model"].get("compute", "bf16") == "bf16"
    optimizer = torch.optim.AdamW(parameter_groups(model, optimizer_job.get("weight_decay", 0.01)), lr=1e-3,
                                  betas=(optimizer_job.get("beta1", 0.9), optimizer_job.get("beta2", 0.98)),
                                  eps=optimizer_job.get("epsilon", 1e-9), fused=True)
    curve, seen, window, begin = [], 0, [0.0, 0], time.perf_counter()
    for step in range(min(steps, args.steps or steps)):
        batches = [dataset.slot_batch(seed, step, slot, slots) for slot in range(slots)]
        tokens = sum(batch[-1] for batch in batches)
        optimizer.zero_grad(set_to_none=True)
        for *arrays, _ in batches:
            loss = slot_loss(model, arrays, smoothing, bf16)
            (loss / tokens).backward()
            window[0] += loss.item()
        if clip > 0:
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(job["schedule"], steps, step)
        optimizer.step()
        seen, window[1] = seen + tokens, window[1] + tokens
        seconds = time.perf_counter() - begin
        over = args.minutes is not None and seconds > 60 * args.minutes
        if (step + 1) % args.every == 0 or over:
            curve.append({"step": step + 1, "tokens": seen, "seconds": round(seconds, 1),
                          "loss": window[0] / window[1], "valid_nll": evaluate(model, dataset, 16, bf16)})
            print(json.dumps(curve[-1]), flush=True)
            window = [0.0, 0]
        if over:
            break
    return curve


def quality(dataset, model, beam):
    tokenizer = sentencepiece.SentencePieceProcessor(str(dataset.folder / "tokenizer.model"))
    pairs = dataset.texts("test")
    longest = model.config.max_length - 1
    sources = [tokenizer.encode(source)[:longest] for source, _ in pairs]
    hypotheses = [tokenizer.decode(ids) for ids in translate(model, sources, beam)]
    references = [[target for _, target in pairs]]
    return {"beam": beam, "bleu": sacrebleu.corpus_bleu(hypotheses, references).score,
            "chrf": sacrebleu.corpus_chrf(hypotheses, references).score, "translations": hypotheses}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--job", required=True, type=pathlib.Path)
    parser.add_argument("--data", required=True, type=pathlib.Path)
    parser.add_argument("--out", required=True, type=pathlib.Path)
    parser.add_argument("--steps", type=int, help="stop after so many (the schedule stays that of the job)")
    parser.add_argument("--minutes", type=float, help="stop training after so many")
    parser.add_argument("--every", type=int, default=50, help="steps from one record of the curve to the next")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    job, dataset = tomllib.loads(args.job.read_text()), Dataset(args.data)
    torch.manual_seed(job["training"].get("seed", 1))
    model = make_model(job, dataset)
    model.train()
    curve = train(args, job, dataset, model)
    report = {"system": f"PyTorch {torch.__version__}", "curve": curve,
              "test": [quality(dataset, model, beam) for beam in (1, 4)]}
    args.out.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    for result in report["test"]:
        print(f"beam {result['beam']}: BLEU {result['bleu']:.2f}, chrF {result['chrf']:.2f}")


if __name__ == "__main__":
    main()
