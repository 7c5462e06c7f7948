#!/usr/bin/env python3
"""A worker of elastic data-parallel training in PyTorch: DistributedDataParallel over gloo, started and restarted by
torchrun. Trains the model of a job file on a dataset of `troupe prepare`; bench/elastic kills it.

Set up to lose as little as it can: a checkpoint every --every steps, written beside the old one and renamed; batches and
dropout are functions of the step, so that a step that is computed again is the same step; deterministic algorithms; one
thread a worker; the gradients' buckets are never rearranged (find_unused_parameters), which would change their sums after a
restart. OUT/RANK.pid holds each worker's process id once it trains. Rank 0 prints a JSON line a step, at last one with the
SHA-256 of the weights.
"""
import argparse
import functools
import hashlib
import json
import os
import pathlib
import tomllib

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import torch  # noqa: E402
import torch.distributed as dist  # noqa: E402
import torch.nn.functional as F  # noqa: E402

from job_pytorch import learning_rate, make_model, make_optimizer  # noqa: E402
from troupe_dataset import Dataset  # noqa: E402


def write_whole(path, write):
    unfinished = path.with_suffix(".unfinished")
    write(unfinished)
    unfinished.rename(path)


class Batches:
    """A step's packs, dealt out to the ranks; each epoch has an order of its own."""

    def __init__(self, folder, seed, slots):
        self.dataset, self.seed, self.slots = Dataset(folder), seed, slots
        self.count = self.dataset.packs("train")
        self.pack = functools.cache(lambda pack: self.dataset.batch("train", pack))
        self.order = functools.lru_cache(2)(
            lambda epoch: torch.randperm(self.count, generator=torch.Generator().manual_seed((seed << 32) + epoch)).tolist())

    def step(self, step, rank, ranks):
        """One batch of this rank's packs, padded to the longest, and the target tokens of all ranks."""
        places = range(step * self.slots, (step + 1) * self.slots)
        packs = [self.pack(self.order(place // self.count)[place % self.count]) for place in places]
        own = packs[rank::ranks]
        widths = [max(pack[column].shape[1] for pack in own) for column in (0, 2)]

        def joined(column, width, value):
            parts = (torch.from_numpy(pack[column]) for pack in own)
            return torch.cat([F.pad(part, (0, width - part.shape[1]), value=value) for part in parts])

        lengths = torch.cat([torch.from_numpy(pack[1]) for pack in own])
        source, target_in, target_out = joined(0, widths[0], 0), joined(2, widths[1], 0), joined(3, widths[1], -1)
        return (source, target_in, target_out, lengths), sum(pack[4] for pack in packs)


def digest(model):
    sha = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        sha.update(name.encode() + tensor.numpy().tobytes())
    return sha.hexdigest()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--job", type=pathlib.Path, required=True)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--every", type=int, default=10, help="steps between checkpoints")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    dist.init_process_group("gloo")
    rank, ranks = dist.get_rank(), dist.get_world_size()
    job = tomllib.loads(args.job.read_text())
    training, optimizer_job = job["training"], job.get("optimizer", {})
    seed, steps = training["seed"], training["steps"]
    batches = Batches(args.data, seed, training["slots"])
    torch.manual_seed(seed)
    model = make_model(job, batches.dataset)
    optimizer = make_optimizer(job, model)
    checkpoint, first = args.out / "checkpoint", 0
    if checkpoint.exists():
        state = torch.load(checkpoint)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]
    ddp = torch.nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view=True, find_unused_parameters=True)
    write_whole(args.out / f"{rank}.pid", lambda path: path.write_text(str(os.getpid())))
    for step in range(first, steps):
        torch.manual_seed((seed << 40) + step * ranks + rank)  # of dropout
        inputs, tokens = batches.step(step, rank, ranks)
        loss = ddp(*inputs, optimizer_job.get("label_smoothing", 0.1), "sum") * (ranks / tokens)  # DDP takes the mean
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), optimizer_job.get("clip_norm", 1.0))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(job["schedule"], steps, step)
        optimizer.step()
        if rank == 0 and (step + 1) % args.every == 0:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1}
            write_whole(checkpoint, functools.partial(torch.save, state))
        if rank == 0:
            print(json.dumps({"step": step + 1}), flush=True)
    if rank == 0:
        print(json.dumps({"digest": digest(model), "version": torch.__version__}), flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
