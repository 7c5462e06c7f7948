#!/usr/bin/env python3
"""Trains the model of a job file in PyTorch on a dataset of `troupe prepare`: the same packs in the same order, the
same batches, schedule, optimizer and initialisation (other random numbers). Writes the loss curve and, at the end,
BLEU and chrF of the test set, greedy and with beam 4, to a JSON file.

With --ranks each rank is a process of its own that computes its share of a step's slots; gradients are added up over
gloo. Two ranks of one thread are faster on two cores than one process of two threads. An interrupted run goes on from
OUT.state when it is started again.

Example: train_translation_pytorch.py --job examples/jobs/translator.toml --data DIR --out curve.json --ranks 2
Needs torch, numpy, sentencepiece and sacrebleu from PyPI.
"""
import argparse
import json
import os
import pathlib
import tempfile
import time
import tomllib

import sacrebleu
import sentencepiece
import torch
import torch.distributed as dist
import torch.multiprocessing

from job_pytorch import learning_rate, make_model, make_optimizer, slot_loss
from translate_pytorch import translate
from troupe_dataset import Dataset


def rank_and_ranks():
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def sum_over_ranks(tensor):
    if dist.is_initialized():
        dist.all_reduce(tensor)
    return tensor


def sum_gradients(model):
    """Adds up the ranks' gradients as one flat vector."""
    if not dist.is_initialized():
        return
    gradients = [p.grad for p in model.parameters()]
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat)
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients])):
        gradient.copy_(part.view_as(gradient))


def evaluate(model, dataset, packs_max, bf16):
    """Mean loss without smoothing over packs spread evenly over the validation set, as Troupe's evaluator has them."""
    model.eval()
    rank, ranks = rank_and_ranks()
    packs = dataset.packs("valid")
    used = min(packs_max, packs)
    sums = torch.zeros(2, dtype=torch.float64)
    with torch.no_grad():
        for index in range(rank, used, ranks):
            *arrays, count = dataset.batch("valid", index * packs // used)
            sums += torch.tensor([slot_loss(model, arrays, 0.0, bf16).item(), count], dtype=torch.float64)
    model.train()
    loss, tokens = sum_over_ranks(sums).tolist()
    return loss / max(tokens, 1)


class Saved:
    """A run's state in a file, written every `every` steps: an interrupted run goes on from there."""

    def __init__(self, path, model, optimizer, every=100):
        self.path, self.model, self.optimizer, self.every = path, model, optimizer, every

    def load(self):
        """Returns (next step, target tokens seen, seconds, curve)."""
        if not self.path.exists():
            return 0, 0, 0.0, []
        state = torch.load(self.path)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        return state["next"], state["tokens"], state["seconds"], state["curve"]

    def save(self, step, tokens, seconds, curve):
        if (step + 1) % self.every != 0 or rank_and_ranks()[0] != 0:
            return
        unfinished = self.path.with_suffix(".unfinished")
        torch.save({"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "next": step + 1,
                    "tokens": tokens, "seconds": seconds, "curve": curve}, unfinished)
        unfinished.rename(self.path)


def train(args, job, dataset, model):
    """Returns the curve: a record every --every steps."""
    training, optimizer_job = job["training"], job.get("optimizer", {})
    smoothing, clip = optimizer_job.get("label_smoothing", 0.1), optimizer_job.get("clip_norm", 1.0)
    steps, slots, seed = training["steps"], training["slots"], training.get("seed", 1)
    bf16 = job["model"].get("compute", "bf16") == "bf16"
    optimizer = make_optimizer(job, model)
    rank, ranks = rank_and_ranks()
    saved = Saved(args.out.with_suffix(".state"), model, optimizer)
    first, seen, seconds, curve = saved.load()
    window, begin = torch.zeros(2, dtype=torch.float64), time.perf_counter() - seconds
    for step in range(first, min(steps, args.steps or steps)):
        torch.manual_seed((seed << 40) + step * ranks + rank)  # of dropout
        batches = [dataset.slot_batch(seed, step, slot, slots) for slot in range(slots)]
        tokens = sum(batch[-1] for batch in batches)
        optimizer.zero_grad(set_to_none=True)
        for *arrays, count in batches[rank::ranks]:
            loss = slot_loss(model, arrays, smoothing, bf16)
            (loss / tokens).backward()
            window += torch.tensor([loss.item(), count], dtype=torch.float64)
        sum_gradients(model)
        if clip > 0:
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(job["schedule"], steps, step)
        optimizer.step()
        seen += tokens
        seconds = time.perf_counter() - begin
        over = args.minutes is not None and seconds > 60 * args.minutes
        if (step + 1) % args.every == 0 or over:
            loss, counted = sum_over_ranks(window).tolist()
            curve.append({"step": step + 1, "tokens": seen, "seconds": round(seconds, 1), "loss": loss / counted,
                          "valid_nll": evaluate(model, dataset, 16, bf16)})
            if rank == 0:
                print(json.dumps(curve[-1]), flush=True)
            window.zero_()
        saved.save(step, seen, seconds, curve)
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


def run(rank, args, meeting):
    """One rank of a run; rank 0 measures the quality and writes the report."""
    torch.set_num_threads(args.threads)
    if args.ranks > 1:
        dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=args.ranks)
    job, dataset = tomllib.loads(args.job.read_text()), Dataset(args.data)
    torch.manual_seed(job["training"].get("seed", 1))
    model = make_model(job, dataset)
    model.train()
    curve = train(args, job, dataset, model)
    if args.ranks > 1:
        dist.destroy_process_group()
    if rank > 0:
        return
    torch.set_num_threads(args.threads * args.ranks)
    torch.save(model.state_dict(), args.out.with_suffix(".pt"))
    report = {"system": f"PyTorch {torch.__version__}", "curve": curve,
              "test": [quality(dataset, model, beam) for beam in (1, 4)]}
    args.out.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    for result in report["test"]:
        print(f"beam {result['beam']}: BLEU {result['bleu']:.2f}, chrF {result['chrf']:.2f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--job", required=True, type=pathlib.Path)
    parser.add_argument("--data", required=True, type=pathlib.Path)
    parser.add_argument("--out", required=True, type=pathlib.Path)
    parser.add_argument("--steps", type=int, help="stop after so many (the schedule stays that of the job)")
    parser.add_argument("--minutes", type=float, help="stop training after so many; with one rank")
    parser.add_argument("--every", type=int, default=50, help="steps from one record of the curve to the next")
    parser.add_argument("--ranks", type=int, default=1, help="processes")
    parser.add_argument("--threads", type=int, help="of each rank; default: the cores shared out")
    args = parser.parse_args()
    args.threads = args.threads or max(1, len(os.sched_getaffinity(0)) // args.ranks)
    if args.ranks == 1:
        return run(0, args, None)
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(run, (args, f"file://{folder}/meeting"), nprocs=args.ranks)


if __name__ == "__main__":
    main()
