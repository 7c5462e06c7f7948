"""What the comparisons with peers share: running a command that measures, the machine, and sections of a file of tables."""
import contextlib
import json
import os
import pathlib
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
PEERS = ROOT / "bench" / "peers"
DOCS = ROOT / "build" / "release" / "benchmarks.md"  # unless another is named, such as docs/benchmarks.md
CORES = len(os.sched_getaffinity(0))  # that this process may use
SENTENCES = {"small": 64, "base": 16, "gpt2": 4}  # of a step of training


def tree(pid):
    """A process and its descendants."""
    processes = [str(pid)]
    for process in processes:  # which grows
        with contextlib.suppress(OSError):  # it has ended meanwhile
            processes += [child for thread in pathlib.Path("/proc", process, "task").glob("*/children")
                          for child in thread.read_text().split()]
    return processes


def proportional_mb(process):
    """Its proportional set size: of what processes share, its part."""
    with contextlib.suppress(OSError):
        lines = pathlib.Path("/proc", process, "smaps_rollup").read_text().splitlines()
        return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:")), 0)
    return 0


def largest_mb(process):
    """Its largest resident set so far. What the system says when it has ended counts what its parent held when it began."""
    with contextlib.suppress(OSError):
        lines = pathlib.Path("/proc", str(process), "status").read_text().splitlines()
        return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), 0)
    return 0


class PeakMemory:
    """The most that a process, or it and its descendants together, hold, sampled in a thread. Reading the proportional set size of
    2 GB takes some 40 ms, so the next sample of several processes follows after 0.3 s, or later where reading would take more than a
    fiftieth of a core."""

    def __init__(self, pid):
        self.mb, self.ended = 0, threading.Event()
        self.thread = threading.Thread(target=self.sample, args=[pid], daemon=True)
        self.thread.start()

    def sample(self, pid):
        pause, together_at = 0.02, time.perf_counter() + 0.3
        while not self.ended.wait(pause):
            self.mb = max(self.mb, largest_mb(pid))
            begin = time.perf_counter()
            if begin >= together_at:
                processes = tree(pid)
                if len(processes) > 1:
                    self.mb = max(self.mb, sum(map(proportional_mb, processes)))
                together_at = begin + max(0.3, 50 * (time.perf_counter() - begin))

    def stop(self):
        self.ended.set()
        self.thread.join()
        return self.mb


def run(command, text=""):
    """Runs a command with `text` as its standard input: (its standard output, seconds to the first byte of it, seconds to its
    end, peak MB of its processes together, or of the largest of them); None, and a word on standard error, when
    it failed."""
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as errors:
        given.write(text.encode())
        given.seek(0)
        own = resource.getrusage(resource.RUSAGE_SELF)
        begin = time.perf_counter()
        process = subprocess.Popen([str(word) for word in command], stdin=given, stdout=subprocess.PIPE, stderr=errors)
        memory = PeakMemory(process.pid)
        output = process.stdout.read(1)
        first = time.perf_counter() - begin
        output += process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        whole = time.perf_counter() - begin
        peak_mb = memory.stop()
        if usage.ru_maxrss > own.ru_maxrss:
            peak_mb = max(peak_mb, usage.ru_maxrss / 1024)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            errors.seek(0)
            sys.stderr.write(f"failed ({process.returncode}): {' '.join(map(str, command))}\n"
                             f"{errors.read().decode(errors='replace')[-800:]}\n")
            return None
    return output.decode(), first, whole, peak_mb


failed_systems = []  # of the comparisons so far


def last_json(command):
    """Runs a command that prints JSON lines; the last one, with `peak_mb` added, or None when it failed."""
    done = run(command)
    lines = [line for line in done[0].splitlines() if line.startswith("{")] if done else []
    if not lines:
        return None
    return json.loads(lines[-1]) | {"peak_mb": round(done[3])}


def best_and_repeats(commands, describe, repeats, label, key="tokens_per_s", better=max,
                     repeated=lambda command, tried: command):
    """system -> (results of the repeats of its best setting). Every setting of every system runs once; then the best of
    each, by `key`, in turn with the others: what `repeated` makes of its command and the result of its try. Each result says with
    how little memory a setting of its system was content, and which."""
    best, leanest = {}, {}
    for system, tries in commands.items():
        for command in tries:
            if (result := last_json(command)) is None:
                continue
            value = result[key]
            print(f"  {label} {system}: {value:,.4g} {key} ({describe(result)})", flush=True)
            if system not in best or better(value, best[system][0]) != best[system][0]:
                best[system] = (value, repeated(command, result))
            if system not in leanest or result["peak_mb"] < leanest[system]["least_mb"]:
                leanest[system] = {"least_mb": result["peak_mb"], "least_mb_setting": describe(result)}
    results = {system: [] for system in best}
    for _ in range(repeats):
        for system, (_, command) in best.items():
            if (result := last_json(command)) is not None:
                results[system].append(result | leanest[system])
    failed_systems.extend(f"{label} {system}" for system in commands if not results.get(system))
    return {system: values for system, values in results.items() if values}


def median(results, key):
    return statistics.median(result[key] for result in results)


def spread(values, form="{:,.0f}"):
    """The smallest and the largest, for a table; nothing of a single one."""
    return f"{form.format(min(values))} - {form.format(max(values))}" if len(values) > 1 else ""


def machine():
    model = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "")
    return {"cpu": model or platform.processor(), "cores": CORES, "date": time.strftime("%Y-%m-%d")}


def add_common_options(parser, name, seconds=None, repeats=3):
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build" / "release")
    parser.add_argument("--repeats", type=int, default=repeats)
    if seconds:
        parser.add_argument("--seconds", default=seconds, help="of measuring, a setting")
    parser.add_argument("--threads", type=int, default=CORES)
    parser.add_argument("--json", type=pathlib.Path, help=f"default: BUILD/bench_{name}.json")
    add_docs_option(parser)


def add_docs_option(parser):
    parser.add_argument("--docs", type=pathlib.Path, default=DOCS, metavar="FILE",
                        help="whose section is written; docs/benchmarks.md: that of the documents (default: build/release/benchmarks.md)")


def add_training_peers(parser):
    parser.add_argument("--pytorch", help="python with PyTorch; without it PyTorch is left out")
    parser.add_argument("--tensorflow", help="python with TensorFlow; without it TensorFlow is left out")


def products_ceiling(ceiling, dtype):
    """GFLOP/s of the machine's products in training of this type: those of f32 where it has none of bf16."""
    return ceiling.get(f"{dtype}_gflops", ceiling["f32_gflops"])


def runs_are(repeats):
    return f"the median of {repeats} runs" if repeats > 1 else "one run"


def measure_all(args, name, title, rows_of, table, rows_are=None):
    """The rows that `rows_of()` measures, between two measurements of the machine's ceilings, go to a JSON file and, by way of
    `table(rows, ceiling)`, to a section of --docs, unless a system could not be measured."""
    ceiling_command = [args.build / "bench_ceiling", args.threads, "3"]
    if (before := last_json(ceiling_command)) is None:
        sys.exit("the machine's ceilings could not be measured: build bench_ceiling first")
    if not rows_are:
        rows_are = f"Each row is the system's best setting, {runs_are(args.repeats)}."
    rows, after = rows_of(), last_json(ceiling_command) or before
    ceiling = {key: max(before[key], after[key]) for key in before if key != "peak_mb"}
    here = machine()
    (args.json or args.build / f"bench_{name}.json").write_text(
        json.dumps({"machine": here, "threads": args.threads, "ceiling": ceiling, "rows": rows}, indent=1) + "\n")
    bf16 = f"{ceiling['bf16_gflops']:.0f} GFLOP/s bf16 and " if "bf16_gflops" in ceiling else ""
    unit = "f32" if bf16 else "GFLOP/s f32, none bf16"
    text = (f"Measured {here['date']} on {here['cores']} cores ({here['cpu']}), {args.threads} threads. Ceilings in the same "
            f"run: products {bf16}{ceiling['f32_gflops']:.0f} {unit}, {ceiling['int8_gops']:.0f} GOP/s of bytes; reading memory "
            f"{ceiling['read_gb_s']:.0f} GB/s; one thread to another {ceiling['socket_gb_s']:.1f} GB/s over a socket, "
            f"{ceiling['shared_memory_gb_s']:.1f} through shared memory. {rows_are}\n\n"
            + "\n".join(table(rows, ceiling)))
    print(text)
    if failed_systems:
        sys.exit(f"{args.docs} stays as it was, since these could not be measured: {', '.join(failed_systems)}")
    write_section(args.docs, name, title, text)


def write_section(path, name, title, text):
    """Replaces what stands between the marks of `name`, or appends a section of that title; says where."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    old = path.read_text() if path.exists() else "# Benchmarks\n"
    section = f"{begin}\n{text}\n{end}"
    if begin in old:
        new = old[: old.index(begin)] + section + old[old.index(end) + len(end):]
    else:
        new = f"{old.rstrip()}\n\n## {title}\n\nRun by `scripts/bench {name}`.\n\n{section}\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(new)
    print(f"\nwritten to {path}")
