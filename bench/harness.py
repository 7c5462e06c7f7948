"""What the comparisons with peers share: running a command that measures, the machine, and sections of docs/benchmarks.md."""
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
DOCS = ROOT / "docs" / "benchmarks.md"


def last_json(command):
    """Runs a command that prints JSON lines; the last one, or None when it failed."""
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode != 0 or not lines:
        sys.stderr.write(f"failed ({done.returncode}): {' '.join(map(str, command))}\n{done.stderr[-800:]}\n")
        return None
    return json.loads(lines[-1])


def best_and_repeats(commands, describe, repeats, label):
    """system -> (results of the repeats of its best setting). Every setting of every system runs once; then the best of
    each, by tokens_per_s, in turn with the others."""
    best = {}
    for system, tries in commands.items():
        for command in tries:
            if (result := last_json(command)) is None:
                continue
            rate = result["tokens_per_s"]
            print(f"  {label} {system}: {rate:.0f} tokens/s ({describe(result)})", flush=True)
            if system not in best or rate > best[system][0]:
                best[system] = (rate, command)
    results = {system: [] for system in best}
    for _ in range(repeats):
        for system, (_, command) in best.items():
            if (result := last_json(command)) is not None:
                results[system].append(result)
    return {system: values for system, values in results.items() if values}


def median(results, key):
    return statistics.median(result[key] for result in results)


def machine():
    model = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "")
    return {"cpu": model or platform.processor(), "cores": os.cpu_count(), "date": time.strftime("%Y-%m-%d")}


def write_section(path, name, title, text):
    """Replaces what stands between the marks of `name`, or appends a section of that title."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    old = path.read_text() if path.exists() else "# Benchmarks\n"
    section = f"{begin}\n{text}\n{end}"
    if begin in old:
        new = old[: old.index(begin)] + section + old[old.index(end) + len(end):]
    else:
        new = f"{old.rstrip()}\n\n## {title}\n\nRun by `scripts/bench {name}`.\n\n{section}\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(new)
