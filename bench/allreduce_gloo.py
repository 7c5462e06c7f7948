#!/usr/bin/env python3
"""Bus bandwidth of Gloo's allreduce (PyTorch, TCP on loopback), in the rows of bench_allreduce.

usage: PYTHON bench/allreduce_gloo.py [RANKS...]     default: 2 4; PYTHON has torch
"""
import statistics
import sys
import tempfile
import time

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

SIZES = [4 << 10, 64 << 10, 1 << 20, 4 << 20, 16 << 20, 64 << 20]


def measure(rank, ranks, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=ranks)
    for size in SIZES:
        values = torch.ones(size // 4)
        dist.all_reduce(values)
        seconds = []
        for _ in range(min(max((256 << 20) // size, 5), 200)):
            begin = time.perf_counter()
            dist.all_reduce(values)
            seconds.append(time.perf_counter() - begin)
        middle = statistics.median(seconds)
        bus = 2 * (ranks - 1) / ranks * size / middle * 1e-9
        if rank == 0:
            print(f"| {ranks} | tcp | Gloo, floats | {size >> 10} KiB | {bus:.2f} | {middle * 1e6:.0f} | 32 |", flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    for count in [int(word) for word in sys.argv[1:]] or [2, 4]:
        with tempfile.TemporaryDirectory() as meeting:
            mp.spawn(measure, args=(count, meeting), nprocs=count)
