#!/usr/bin/env python3
"""Steps of base and GPT-2 124M on GPU 0 beside PyTorch's, eager and compiled, with the same shapes, layers, dropout and
AdamW: rows of docs/gpu.md. PyTorch may pad GPT-2's vocabulary, which its products like better, and its best setting counts.
Needs bench_gpu, and a PyTorch that finds the GPU. Example: gpu_peers.py build/gpu/bench_gpu
"""
import argparse
import json
import os
import pathlib
import re
import subprocess
import sys

PEER = pathlib.Path(__file__).parent / "peers" / "train_pytorch.py"
MODELS = {"base translation": "base", "GPT-2 124M": "gpt2"}  # those of bench_gpu, and of the peer
MULTIPLES = {"base": [1], "gpt2": [1, 64]}  # of the vocabulary; that of base, 32,000, is one of 64
STEP = re.compile(r"\| (.+), (\d+) x (\d+) x (\d+): step \| .* \| (\d+) tokens/s \|")


def steps_of(output):
    """name: (sentences, length, slots, tokens a second), of what bench_gpu prints."""
    return {name: tuple(map(int, numbers)) for name, *numbers in STEP.findall(output)}


def peer(python, model, sentences, length, slots, seconds):
    """The best setting's result, as the peer prints it."""
    shape = ["--sentences", str(sentences), "--length", str(length), "--slots", str(slots)]
    # PyTorch brings CUDA's libraries, in versions of its own.
    environment = {name: value for name, value in os.environ.items() if name != "LD_LIBRARY_PATH"}
    results = []
    for multiple in MULTIPLES[model]:
        command = [python, str(PEER), "--device", "cuda", "--model", model, "--seconds", str(seconds), *shape,
                   "--vocabulary-multiple", str(multiple), "--mode", "eager", "compile"]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment)
        found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        if done.returncode != 0 or not found:
            sys.exit(f"gpu_peers.py: PyTorch failed with {done.returncode}: {' '.join(command)}")
        results += found
    return max(results, key=lambda result: result["tokens_per_s"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bench_gpu", type=pathlib.Path)
    parser.add_argument("--python", default=sys.executable, help="whose PyTorch finds the GPU")
    parser.add_argument("--seconds", type=float, default=10, help="of measuring, a setting")
    args = parser.parse_args()
    done = subprocess.run([args.bench_gpu, "--steps"], stdout=subprocess.PIPE, text=True)
    print(done.stdout, end="", flush=True)
    steps = steps_of(done.stdout)
    if done.returncode != 0 or MODELS.keys() - steps.keys():
        sys.exit(f"gpu_peers.py: {args.bench_gpu} --steps ended with {done.returncode} and {len(steps)} of {len(MODELS)} steps")
    for name, model in MODELS.items():
        sentences, length, slots, rate = steps[name]
        best = peer(args.python, model, sentences, length, slots, args.seconds)
        print(f"| {name}: beside PyTorch {best['version']}, {best['mode']}, vocabulary {best['vocabulary']} | "
              f"{best['step_ms']} ms for its step | {rate} and {best['tokens_per_s']:.0f} tokens/s | "
              f"{rate / best['tokens_per_s']:.2f} times, to reach 1.2 |", flush=True)


if __name__ == "__main__":
    main()
