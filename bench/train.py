#!/usr/bin/env python3
"""Training speed of Troupe beside PyTorch and TensorFlow, alternating in one run; started by scripts/bench train.

First every setting of every system runs once; then each system's best setting runs `--repeats` times, in turn with
the others, between two measurements of the machine's ceilings. Medians go to a JSON file and to a section of
docs/benchmarks.md.
"""
import argparse
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
PEERS = ROOT / "bench" / "peers"
BEGIN, END = "<!-- train: begin -->", "<!-- train: end -->"


def last_json(command):
    """Runs a command that prints JSON lines; the last one, or None when it failed."""
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode != 0 or not lines:
        sys.stderr.write(f"failed ({done.returncode}): {' '.join(map(str, command))}\n{done.stderr[-800:]}\n")
        return None
    return json.loads(lines[-1])


def settings(args, model, dtype):
    """Every setting to try: system -> commands."""
    common = ["--model", model, "--dtype", dtype, "--seconds", args.seconds, "--threads", args.threads]
    ours = [args.build / "bench_train", *common]
    out = {"troupe": [[*ours, "--slots", str(args.threads * k)] for k in (1, 2, 4)],
           "troupe (float sum)": [[*ours, "--sum", "float", "--slots", str(args.threads * k)] for k in (1, 4)]}
    if args.pytorch:
        script = [args.pytorch, PEERS / "train_pytorch.py", *common, "--mode"]
        out["pytorch"] = [[*script, mode] for mode in args.pytorch_modes]
    if args.tensorflow and model != "gpt2":
        script = [args.tensorflow, PEERS / "train_tensorflow.py", *common, "--jit"]
        out["tensorflow"] = [[*script, jit] for jit in args.tensorflow_modes]
    return out


def describe(result):
    slots = f", {result['slots']} slots" if "slots" in result else ""
    return f"{result['mode']}, {result['threads']} threads{slots}"


def measure(args, model, dtype):
    """A row a system, with the median of its best setting's repeats."""
    best = {}
    for system, commands in settings(args, model, dtype).items():
        tried = [(result["tokens_per_s"], describe(result), command) for command in commands
                 if (result := last_json(command)) is not None]
        for rate, setting, _ in tried:
            print(f"  {model} {dtype} {system}: {rate:.0f} tokens/s ({setting})", flush=True)
        if tried:
            best[system] = max(tried, key=lambda entry: entry[0])
    rates = {system: [] for system in best}
    last = {}
    for _ in range(args.repeats):
        for system, (_, _, command) in best.items():
            if (result := last_json(command)) is not None:
                rates[system].append(result["tokens_per_s"])
                last[system] = result
    rows = [{"model": model, "dtype": dtype, "system": system, "setting": describe(last[system]),
             "version": last[system].get("version", ""), "tokens_per_s": statistics.median(values),
             "all_tokens_per_s": values} for system, values in rates.items() if values]
    flops = next(r["gflop_a_step"] / (r["step_ms"] * 1e-3 * r["tokens_per_s"]) for r in last.values()
                 if "gflop_a_step" in r)  # products a target token, the same for all systems
    for row in rows:
        row["gflops"] = round(flops * row["tokens_per_s"], 1)
    return rows


def machine():
    model = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "")
    return {"cpu": model or platform.processor(), "cores": os.cpu_count(), "date": time.strftime("%Y-%m-%d")}


def table(report):
    ceiling = report["ceiling"]
    lines = [f"Measured {report['machine']['date']} on {report['machine']['cores']} cores ({report['machine']['cpu']}), "
             f"{report['threads']} threads. Ceilings in the same run: products {ceiling['bf16_gflops']:.0f} GFLOP/s "
             f"bf16 and {ceiling['f32_gflops']:.0f} f32, reading memory {ceiling['read_gb_s']:.0f} GB/s. "
             "Each row is the system's best setting, the median of its repeats.", "",
             "| model | type | system | setting | target tokens/s | to Troupe | share of product ceiling |",
             "|---|---|---|---|---:|---:|---:|"]
    ours = {(r["model"], r["dtype"]): r["tokens_per_s"] for r in report["rows"] if r["system"] == "troupe"}
    for row in report["rows"]:
        ratio = row["tokens_per_s"] / ours[row["model"], row["dtype"]]
        share = row["gflops"] / ceiling[f"{row['dtype']}_gflops"]
        name = f"{row['system']} {row['version']}".strip()
        lines.append(f"| {row['model']} | {row['dtype']} | {name} | {row['setting']} | {row['tokens_per_s']:,.0f} | "
                     f"{ratio:.2f} | {100 * share:.0f} % |")
    return "\n".join(lines)


def write_section(path, text):
    """Replaces what stands between the two marks, or appends the section."""
    old = path.read_text() if path.exists() else "# Benchmarks\n"
    section = f"{BEGIN}\n{text}\n{END}"
    if BEGIN in old:
        new = old[: old.index(BEGIN)] + section + old[old.index(END) + len(END):]
    else:
        new = old.rstrip() + "\n\n## Training speed\n\nRun by `scripts/bench train`.\n\n" + section + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(new)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build" / "release")
    parser.add_argument("--models", nargs="+", default=["small", "base"], choices=["small", "base", "gpt2"])
    parser.add_argument("--dtypes", nargs="+", default=["bf16", "f32"], choices=["bf16", "f32"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", default="10", help="of measuring, a setting")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--pytorch", help="python with PyTorch; without it PyTorch is left out")
    parser.add_argument("--tensorflow", help="python with TensorFlow; without it TensorFlow is left out")
    parser.add_argument("--pytorch-modes", nargs="+", default=["eager", "compile", "ddp", "ddp_compile"])
    parser.add_argument("--tensorflow-modes", nargs="+", default=["graph", "xla"])
    parser.add_argument("--json", type=pathlib.Path, help="default: BUILD/bench_train.json")
    parser.add_argument("--docs", type=pathlib.Path, default=ROOT / "docs" / "benchmarks.md")
    args = parser.parse_args()
    ceiling_command = [args.build / "bench_ceiling", args.threads, "3"]
    before = last_json(ceiling_command)
    rows = [row for model in args.models for dtype in args.dtypes for row in measure(args, model, dtype)]
    after = last_json(ceiling_command)
    if before is None or after is None:
        sys.exit("the machine's ceilings could not be measured: build bench_ceiling first")
    ceiling = {name: max(before[name], after[name]) for name in before}
    report = {"machine": machine(), "threads": args.threads, "ceiling": ceiling, "rows": rows}
    (args.json or args.build / "bench_train.json").write_text(json.dumps(report, indent=1) + "\n")
    write_section(args.docs, table(report))
    print(table(report))


if __name__ == "__main__":
    main()
