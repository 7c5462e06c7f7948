#!/usr/bin/env python3
"""Training speed of the same Transformer in PyTorch: target tokens a second on full synthetic batches.

Prints one JSON line a setting. Modes: eager, compile (torch.compile), ddp (as many ranks of one thread as --threads says, over
gloo, which share the sentences evenly or are refused), ddp_compile; on GPUs reduce-overhead (torch.compile with CUDA graphs).
Example: train_pytorch.py --model small --dtype bf16 --mode eager ddp
On a GPU: train_pytorch.py --device cuda --model gpt2 --sentences 16 --length 1024 --slots 2 --mode eager compile reduce-overhead
"""
import argparse
import contextlib
import dataclasses
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


@dataclasses.dataclass(frozen=True)
class Work:
    model: str
    dtype: str
    threads: int
    seconds: float
    device: str = "cpu"
    sentences: int = 0  # of a slot; 0: the model's, like length
    length: int = 0
    slots: int = 1  # whose gradients a step adds up
    vocabulary_multiple: int = 1

    def config(self):
        """The model's, with rows of the embedding that no token has, up to the multiple."""
        config, multiple = PRESETS[self.model][0], self.vocabulary_multiple
        return dataclasses.replace(config, vocabulary=-(-config.vocabulary // multiple) * multiple)

    def shape(self):
        _, sentences, length = PRESETS[self.model]
        return self.sentences or sentences, self.length or length


def measure(work, mode, rank=0, ranks=1):
    """One rank's run; returns (tokens a second of all ranks, milliseconds a step, last loss)."""
    torch.set_num_threads(work.threads)
    torch.manual_seed(1)
    sentences, length = work.shape()
    model = Transformer(work.config()).to(work.device)
    model.train()
    step_model = model
    if ranks > 1:
        step_model = torch.nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view=True)
    graphs = mode == "reduce-overhead"
    if graphs or mode.endswith("compile"):
        torch.compiler.reset()  # what other modes have compiled
        step_model = torch.compile(step_model, mode="reduce-overhead" if graphs else None)
    if graphs:  # slots add to gradients in memory of their own: that of a graph's results is written again by its next launch
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
    optimizer = torch.optim.AdamW(parameter_groups(model, 0.01), lr=1e-4, betas=(0.9, 0.98), eps=1e-9, fused=True)
    generator = torch.Generator().manual_seed(rank)
    batches = [[ids.to(work.device) for ids in synthetic(PRESETS[work.model][0], sentences // ranks, length, generator)]
               for _ in range(4)]

    def step(index):
        optimizer.zero_grad(set_to_none=not graphs)
        for slot in range(work.slots):
            bf16 = work.dtype == "bf16"
            with torch.autocast(work.device, torch.bfloat16) if bf16 else contextlib.nullcontext():
                loss = step_model(*batches[(index + slot) % len(batches)]) / work.slots
            loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.item() * work.slots  # which waits for a GPU

    step(0)
    begin = time.perf_counter()
    step(1)
    one = time.perf_counter() - begin
    count = torch.tensor([max(2, min(200, int(work.seconds / one)))])
    if ranks > 1:
        torch.distributed.broadcast(count, 0)
    times = []
    for index in range(int(count)):
        begin = time.perf_counter()
        loss = step(index)
        times.append(time.perf_counter() - begin)
    mean = sum(times) / len(times)
    return sentences * length * work.slots / mean, mean * 1e3, loss


def ddp_rank(rank, folder, work, mode, ranks):
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=ranks)
    result = measure(work, mode, rank=rank, ranks=ranks)
    if rank == 0:
        with open(f"{folder}/result", "w") as file:
            json.dump(result, file)
    torch.distributed.destroy_process_group()


def run(work, mode):
    if not mode.startswith("ddp"):
        return measure(work, mode)
    with tempfile.TemporaryDirectory() as folder:
        ranks = work.threads
        torch.multiprocessing.spawn(ddp_rank, (folder, dataclasses.replace(work, threads=1), mode, ranks), nprocs=ranks)
        with open(f"{folder}/result") as file:
            return json.load(file)


def check_modes(args, parser):
    sentences = args.sentences or PRESETS[args.model][1]
    if "reduce-overhead" in args.mode and args.device == "cpu":
        parser.error("the mode reduce-overhead is for GPUs")
    if not any(mode.startswith("ddp") for mode in args.mode):
        return
    if args.device != "cpu":
        parser.error("the DDP modes are for CPUs")
    if args.threads < 1 or sentences % args.threads:
        parser.error(f"{args.threads} ranks do not share {sentences} sentences evenly")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=PRESETS, default="small")
    parser.add_argument("--dtype", nargs="+", choices=["f32", "bf16"], default=["bf16"])
    parser.add_argument("--mode", nargs="+", choices=["eager", "compile", "reduce-overhead", "ddp", "ddp_compile"], default=["eager"])
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of eager and compile; so many DDP ranks of one")
    parser.add_argument("--seconds", type=float, default=10, help="of measuring, a setting")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--sentences", type=int, default=0, help="of a slot, if not the model's")
    parser.add_argument("--length", type=int, default=0, help="in tokens, if not the model's")
    parser.add_argument("--slots", type=int, default=1, help="whose gradients a step adds up")
    parser.add_argument("--vocabulary-multiple", type=int, default=1, metavar="N",
                        help="pads the vocabulary up to a multiple of N; no token is of the padding")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("PyTorch finds no GPU")
    if args.vocabulary_multiple < 1:
        parser.error("--vocabulary-multiple is at least 1")
    check_modes(args, parser)
    for dtype in args.dtype:
        for mode in args.mode:
            work = Work(args.model, dtype, args.threads, args.seconds, args.device, args.sentences, args.length,
                        args.slots, args.vocabulary_multiple)
            rate, milliseconds, loss = run(work, mode)
            print(json.dumps({"system": "pytorch", "version": torch.__version__, "model": args.model, "dtype": dtype,
                              "mode": mode, "threads": args.threads, "vocabulary": work.config().vocabulary,
                              "tokens_per_s": round(rate, 1), "step_ms": round(milliseconds, 2),
                              "loss": round(loss, 4)}), flush=True)


if __name__ == "__main__":
    main()
