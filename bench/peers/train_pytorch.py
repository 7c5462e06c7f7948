#!/usr/bin/env python3
"""Training speed of the same Transformer in PyTorch: target tokens a second on full synthetic batches.

Prints one JSON line a setting. Modes: eager, compile (torch.compile), ddp (two ranks of one thread over gloo, each
with half the batch), ddp_compile. Example: train_pytorch.py --model small --dtype bf16 --mode eager ddp
"""
import argparse
import contextlib
import json
import os
import sys
import tempfile
import time

# glibc gives large blocks back to the kernel at once; keeping them saves PyTorch a page fault an element block.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "4294967296", "MALLOC_TRIM_THRESHOLD_": "17179869184", "MALLOC_TOP_PAD_": "67108864"}
if __name__ == "__main__" and any(name not in os.environ for name in ALLOCATOR):
    os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **ALLOCATOR})

import torch  # noqa: E402

from transformer_pytorch import PRESETS, Transformer, parameter_groups  # noqa: E402


def synthetic(config, sentences, length, generator):
    ids = torch.randint(4, config.vocabulary, (3, sentences, length), generator=generator)
    return ids[0], ids[1], ids[2]


def measure(name, dtype, mode, threads, seconds, rank=0, ranks=1):
    """One rank's run; returns (tokens a second of all ranks, milliseconds a step, last loss)."""
    torch.set_num_threads(threads)
    torch.manual_seed(1)
    config, sentences, length = PRESETS[name]
    model = Transformer(config)
    model.train()
    step_model = model
    if ranks > 1:
        step_model = torch.nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view=True)
    if mode.endswith("compile"):
        step_model = torch.compile(step_model)
    optimizer = torch.optim.AdamW(parameter_groups(model, 0.01), lr=1e-4, betas=(0.9, 0.98), eps=1e-9, fused=True)
    generator = torch.Generator().manual_seed(rank)
    batches = [synthetic(config, sentences // ranks, length, generator) for _ in range(4)]

    def step(index):
        cast = torch.autocast("cpu", torch.bfloat16) if dtype == "bf16" else contextlib.nullcontext()
        with cast:
            loss = step_model(*batches[index % len(batches)])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.item()

    step(0)
    begin = time.perf_counter()
    step(1)
    one = time.perf_counter() - begin
    count = torch.tensor([max(2, min(200, int(seconds / one)))])
    if ranks > 1:
        torch.distributed.broadcast(count, 0)
    times = []
    for index in range(int(count)):
        begin = time.perf_counter()
        loss = step(index)
        times.append(time.perf_counter() - begin)
    mean = sum(times) / len(times)
    return sentences * length / mean, mean * 1e3, loss


def ddp_rank(rank, folder, args):
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    result = measure(*args, rank=rank, ranks=2)
    if rank == 0:
        with open(f"{folder}/result", "w") as file:
            json.dump(result, file)
    torch.distributed.destroy_process_group()


def run(name, dtype, mode, threads, seconds):
    if not mode.startswith("ddp"):
        return measure(name, dtype, mode, threads, seconds)
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(ddp_rank, (folder, (name, dtype, mode, 1, seconds)), nprocs=2)
        with open(f"{folder}/result") as file:
            return json.load(file)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=PRESETS, default="small")
    parser.add_argument("--dtype", nargs="+", choices=["f32", "bf16"], default=["bf16"])
    parser.add_argument("--mode", nargs="+", choices=["eager", "compile", "ddp", "ddp_compile"], default=["eager"])
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of eager and compile; DDP ranks have one")
    parser.add_argument("--seconds", type=float, default=10, help="of measuring, a setting")
    args = parser.parse_args()
    for dtype in args.dtype:
        for mode in args.mode:
            rate, milliseconds, loss = run(args.model, dtype, mode, args.threads, args.seconds)
            print(json.dumps({"system": "pytorch", "version": torch.__version__, "model": args.model, "dtype": dtype,
                              "mode": mode, "threads": 2 if mode.startswith("ddp") else args.threads,
                              "tokens_per_s": round(rate, 1), "step_ms": round(milliseconds, 2),
                              "loss": round(loss, 4)}), flush=True)


if __name__ == "__main__":
    main()
