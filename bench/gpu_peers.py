#!/usr/bin/env python3
"""Steps of base and GPT-2 124M on GPU 0 beside PyTorch's, eager, compiled and compiled with CUDA graphs, with the same shapes, layers,
dropout and AdamW: rows of docs/gpu.md. PyTorch may pad GPT-2's vocabulary, which its products like better, and its best setting
counts. Ends in --limit seconds: each of PyTorch's processes has its share of what is left, and modes that do not fit are left out,
with a word. Needs bench_gpu, and a PyTorch that finds the GPU. Example: gpu_peers.py build/gpu/bench_gpu
"""
import argparse
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

PEER = pathlib.Path(__file__).parent / "peers" / "train_pytorch.py"
MODELS = {"base translation": "base", "GPT-2 124M": "gpt2"}  # those of bench_gpu, and of the peer
MODES = ["eager", "compile", "reduce-overhead"]  # in this order, as a limit may end them
MULTIPLES = {"base": [1], "gpt2": [1, 64]}  # of the vocabulary; that of base, 32,000, is one of 64
STEP = re.compile(r"\| (.+), (\d+) x (\d+) x (\d+): step \| .* \| (\d+) tokens/s \|")


def steps_of(output):
    """name: (sentences, length, slots, tokens a second), of what bench_gpu prints."""
    return {name: tuple(map(int, numbers)) for name, *numbers in STEP.findall(output)}


def output_of(command, limit_s, environment=None):
    """What it prints on standard output, until it ends or has run so long, when it and what it has started are killed; why it did not
    end well, or nothing."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True)
    why = ""
    try:
        output, _ = process.communicate(timeout=max(1, limit_s))
    except subprocess.TimeoutExpired:
        why = f"{limit_s:.0f} s were over"
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
    if why:
        output, _ = process.communicate()
    elif process.returncode != 0:
        why = f"it ended with {process.returncode}"
    return output, why


def peer(args, model, shape, end, settings_left):
    """The best setting's result, as the peer prints it. Until `end` so many settings, each of all modes, must be measured."""
    sentences, length, slots = map(str, shape)
    # PyTorch brings CUDA's libraries, in versions of its own.
    environment = {name: value for name, value in os.environ.items() if name != "LD_LIBRARY_PATH"}
    results = []
    for index, multiple in enumerate(MULTIPLES[model]):
        command = [args.python, str(PEER), "--device", "cuda", "--model", model, "--seconds", str(args.seconds), "--sentences",
                   sentences, "--length", length, "--slots", slots, "--vocabulary-multiple", str(multiple), "--mode", *MODES]
        output, why = output_of(command, (end - time.monotonic()) / (settings_left - index), environment)
        found = [json.loads(line) for line in output.splitlines() if line.startswith("{") and line.endswith("}")]
        if missing := MODES[len(found):]:
            print(f"gpu_peers.py: {model}, multiple {multiple}: without {', '.join(missing)}: {why}", file=sys.stderr, flush=True)
        results += found
    if not results:
        sys.exit(f"gpu_peers.py: PyTorch measured nothing: {' '.join(command)}")
    return max(results, key=lambda result: result["tokens_per_s"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bench_gpu", type=pathlib.Path)
    parser.add_argument("--python", default=sys.executable, help="whose PyTorch finds the GPU")
    parser.add_argument("--seconds", type=float, default=6, help="of measuring, a mode")
    parser.add_argument("--limit", type=float, default=360, help="seconds of all of it")
    args = parser.parse_args()
    end = time.monotonic() + args.limit
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # not without ending what was started
    output, why = output_of([args.bench_gpu, "--steps"], args.limit)
    print(output, end="", flush=True)
    steps = steps_of(output)
    if why or MODELS.keys() - steps.keys():
        sys.exit(f"gpu_peers.py: {args.bench_gpu} --steps gave {len(steps)} of {len(MODELS)} steps{why and ': '}{why}")
    settings_left = sum(map(len, MULTIPLES.values()))
    for name, model in MODELS.items():
        *shape, rate = steps[name]
        best = peer(args, model, shape, end, settings_left)
        settings_left -= len(MULTIPLES[model])
        print(f"| {name}: beside PyTorch {best['version']}, {best['mode']}, vocabulary {best['vocabulary']} | "
              f"{best['step_ms']} ms for its step | {rate} and {best['tokens_per_s']:.0f} tokens/s | "
              f"{rate / best['tokens_per_s']:.2f} times, to reach 1.2 |", flush=True)


if __name__ == "__main__":
    main()
