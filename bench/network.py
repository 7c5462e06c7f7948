#!/usr/bin/env python3
"""How a step grows with nodes and networks; started by scripts/bench network. Needs root: each node is a host of its own (a
network namespace, its cable limited by tc tbf) with a CPU share of its own (cgroup v1), so that more nodes are more machines.

The job is examples/jobs/tiny.toml, widened so that its slots are worth sharing out. Step times are the medians of what a node's
ledger says. Delays go through the fault proxies of `troupe drill`, which themselves cost something: the row without delay has
them as well. A model of the step is fitted to the rows without proxies, and drawn on to 1,000 nodes.
"""
import argparse
import contextlib
import json
import math
import os
import pathlib
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile

from harness import ROOT, add_docs_option, machine, write_section

SLOTS = 16  # a step; a thread of a node has one at a time
JOB = ["--job", ROOT / "examples" / "jobs" / "tiny.toml"]
for _setting in ("model.width=128", "model.inner=512", "model.heads=4", f"training.slots={SLOTS}", "evaluation.every=0",
                 "checkpoint.every=0"):
    JOB += ["--set", _setting]
GROUPS = pathlib.Path("/sys/fs/cgroup/cpu")
HOP_MS = 0.05  # the delay of a way in the network that the model predicts
MEMBERSHIP_MBIT = 46 * 8  # that the leader of 1,000 nodes sends a step, most of it in proportion to the square of the nodes
PERIOD_US = 20_000  # short, so that a share is not a long burst and a long pause


def ip(*words):
    subprocess.run(["ip", *map(str, words)], check=True)


class Hosts:
    """One switch, and hosts on it whose cables carry `mbit` a second each way."""

    def __init__(self, names, mbit):
        self.prefix = f"troupe-bench-{os.getpid()}-"
        self.names, self.made = names, []
        self.addresses = {name: f"10.78.0.{i + 1}" for i, name in enumerate(names)}
        try:
            self.space("hub")
            ip("-n", self.prefix + "hub", "link", "add", "switch", "type", "bridge")
            ip("-n", self.prefix + "hub", "link", "set", "switch", "up")
            for name in names:
                self.plug(name, mbit if name != "client" else 0)
        except BaseException:
            self.close()
            raise

    def space(self, name):
        ip("netns", "add", self.prefix + name)
        self.made.append(self.prefix + name)
        return self.prefix + name

    def plug(self, name, mbit):
        hub, space = self.prefix + "hub", self.space(name)
        ip("link", "add", "name", "eth0", "netns", space, "type", "veth", "peer", "name", f"to-{name}", "netns", hub)
        ip("-n", hub, "link", "set", f"to-{name}", "master", "switch", "up")
        ip("-n", space, "address", "add", self.addresses[name] + "/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            ip("-n", space, "link", "set", device, "up")
        if mbit:
            burst = max(32_000, mbit * 1_000_000 // 8 // 100)  # bytes: what passes between two ticks of the kernel, and more
            for where, device in ((space, "eth0"), (hub, f"to-{name}")):
                subprocess.run(["tc", "-n", where, "qdisc", "add", "dev", device, "root", "tbf", "rate", f"{mbit}mbit",
                                "burst", str(burst), "latency", "50ms"], check=True)

    def on(self, name, command):
        return ["ip", "netns", "exec", self.prefix + name, *map(str, command)]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        for name in self.made:
            subprocess.run(["ip", "netns", "delete", name], check=False)


class Shares:
    """CPU groups, one a node, of `percent` of a core each."""

    def __init__(self, names, percent):
        self.root, self.names = GROUPS / f"troupe-bench-{os.getpid()}", names
        self.root.mkdir()
        try:
            for name in names:
                (self.root / name).mkdir()
                (self.root / name / "cpu.cfs_period_us").write_text(str(PERIOD_US))
                (self.root / name / "cpu.cfs_quota_us").write_text(str(PERIOD_US * percent // 100))
        except BaseException:
            self.close()
            raise

    def enter(self, name):
        """For preexec_fn."""
        return lambda: (self.root / name / "cgroup.procs").write_text(str(os.getpid()))

    def wrapper(self, program, path):
        """The program at `path`: `program`, but a node of a drill goes into its group; not the drill's undisturbed run."""
        path.write_text(f"""#!/bin/sh
name= before= undisturbed=
for word; do
  [ "$before" != --name ] || name=$word
  case "$before $word" in "--cluster "*/undisturbed/*) undisturbed=yes ;; esac
  before=$word
done
[ -n "$undisturbed" ] || [ -z "$name" ] || echo $$ >{self.root}/$name/cgroup.procs
exec {shlex.quote(str(program))} "$@"
""")
        path.chmod(0o755)
        return path

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        for folder in [*self.root.iterdir(), self.root]:
            if folder.is_dir():
                folder.rmdir()


def names_of(nodes):
    return [f"node{i}" for i in range(nodes)]


def step_ms(ledger):
    """The median time between the steps of a ledger, the first quarter left out."""
    at = [json.loads(line)["at"] for line in ledger.read_text().splitlines()]
    return statistics.median(b - a for a, b in zip(at[len(at) // 4:], at[len(at) // 4 + 1:])) / 1000


def steps_for(args, nodes):
    return max(12, args.steps * nodes // 8)


@contextlib.contextmanager
def node_processes(args, cluster, hosts, shares, work):
    """A node on each host but the client's, all of which end with this context."""
    processes = []
    try:
        for name in shares.names:
            with open(work / f"{name}.log", "w") as log:
                processes.append(subprocess.Popen(hosts.on(name, [args.troupe, "node", "--cluster", cluster, "--name", name]),
                                                  stdout=subprocess.DEVNULL, stderr=log, preexec_fn=shares.enter(name)))
        yield
    finally:
        for process in processes:
            process.send_signal(signal.SIGTERM)
        for process in processes:
            process.wait()


def train(args, nodes, mbit, work):
    names = names_of(nodes)
    cluster, out = work / "cluster.toml", work / "run"
    with Hosts([*names, "client"], mbit) as hosts, Shares(names, args.percent) as shares:
        cluster.write_text('[cluster]\nname = "bench"\ntransport = "tcp"\n[security]\ninsecure = true\n' + "".join(
            f'[[nodes]]\nname = "{name}"\naddress = "{hosts.addresses[name]}:7000"\nthreads = 1\n' for name in names))
        with node_processes(args, cluster, hosts, shares, work):
            done = subprocess.run(hosts.on("client", [args.troupe, "train", "--cluster", cluster, *JOB, "--out", out, "--steps",
                                                      steps_for(args, nodes), "--json"]), capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"bench/network: training on {nodes} nodes has failed: {done.stderr.strip()[-500:]}")
    return step_ms(out / "ledger" / "node0.jsonl"), json.loads(done.stdout.splitlines()[-1])["digest"]


def drill(args, nodes, delay_ms, work):
    """A delay of 0: through the proxies, but none of them does anything (a loss of one node's pieces for a moment)."""
    plan = work / "plan.toml"
    afflicted = names_of(nodes)[1:]  # every pair has one of them
    if delay_ms:
        plan.write_text("".join(f'[[faults]]\nkind = "delay"\nnode = "{name}"\nat_step = 0\nlasts_ms = 100000000\n'
                                f"delay_ms = {delay_ms:g}\n" for name in afflicted))
    else:
        plan.write_text(f'[[faults]]\nkind = "loss"\nnode = "{afflicted[0]}"\nat_step = 0\nlasts_ms = 1\n')
    out = work / "run"
    with Shares(names_of(nodes), args.percent) as shares:
        done = subprocess.run(list(map(str, [args.troupe, "drill", *JOB, "--out", out, "--nodes", nodes, "--plan", plan, "--steps",
                                             steps_for(args, nodes), "--json", "--node-program",
                                             shares.wrapper(args.troupe, work / "troupe")])), capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"bench/network: a drill with {nodes} nodes has failed: {done.stderr.strip()[-500:]}")
    return step_ms(out / "ledger" / "node0.jsonl")


def measure(args):
    rows, digests = [], set()
    for nodes in args.nodes:
        for mbit in args.mbits if nodes > 1 else args.mbits[-1:]:
            with tempfile.TemporaryDirectory(prefix="troupe-network-") as folder:
                ms, digest = train(args, nodes, mbit, pathlib.Path(folder))
            digests.add((steps_for(args, nodes), digest))
            rows.append({"nodes": nodes, "mbit": mbit, "step_ms": ms})
            print(f"  {nodes} nodes, {mbit} Mbit/s: {ms:,.0f} ms a step", flush=True)
        for delay_ms in args.delays if nodes > 1 else []:
            with tempfile.TemporaryDirectory(prefix="troupe-network-") as folder:
                ms = drill(args, nodes, delay_ms, pathlib.Path(folder))
            rows.append({"nodes": nodes, "delay_ms": delay_ms, "step_ms": ms})
            print(f"  {nodes} nodes, {delay_ms:g} ms of delay: {ms:,.0f} ms a step", flush=True)
    if len(digests) != len({steps for steps, _ in digests}):
        sys.exit("bench/network: the same steps have ended with different weights")
    return rows


def features(nodes, mbit):
    """Of a step's time: the slots of the node that has most, work that each does whole, bytes on each cable, hops of the ring.
    With more nodes than SLOTS, a step of SLOTS slots and one of as many slots as nodes take as long: a slot's time."""
    return [math.ceil(SLOTS / nodes) / SLOTS, 1, 2 * (nodes - 1) / nodes / mbit, nodes - 1]


def fit(rows):
    """Least squares with coefficients that are not negative: (ms of all slots, whole ms, Mbit-ms, ms a hop) of the rows on cables,
    (delays that a step waits for, and more for each further node) of those through proxies."""
    import numpy
    from scipy.optimize import nnls
    cables = [row for row in rows if "mbit" in row]
    weights = numpy.array([1 / row["step_ms"] for row in cables])  # errors in proportion
    a = numpy.array([features(row["nodes"], row["mbit"]) for row in cables]) * weights[:, None]
    at_once = {row["nodes"]: row["step_ms"] for row in rows if row.get("delay_ms") == 0}
    late = [row for row in rows if row.get("delay_ms") and row["nodes"] in at_once]
    waits = numpy.array([[row["delay_ms"], row["delay_ms"] * (row["nodes"] - 1)] for row in late]).reshape(-1, 2)
    more = numpy.array([max(0, row["step_ms"] - at_once[row["nodes"]]) for row in late])
    return nnls(a, numpy.ones(len(cables)))[0], nnls(waits, more)[0] if late else (0, 0)


def predicted(model, nodes, mbit, hop_ms=0):
    """On cables of `mbit`, whose ways take `hop_ms`."""
    step, (waits, waits_a_node) = model
    several = nodes > 1
    membership_ms = several * MEMBERSHIP_MBIT * (nodes / 1000) ** 2 / mbit * 1000
    return (sum(c * f for c, f in zip(step, features(nodes, mbit))) + several * hop_ms * (waits + waits_a_node * (nodes - 1))
            + membership_ms)


def values_of(rows, key):
    return sorted({row[key] for row in rows if key in row})


def draw(args, rows, model):
    import matplotlib
    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "network"  # the same picture from the same numbers
    import matplotlib.pyplot as plt
    figure, (left, right, work) = plt.subplots(1, 3, figsize=(15, 3.8), layout="constrained")
    many = [2 ** k for k in range(10)] + [1000]
    for mbit, colour in zip(values_of(rows, "mbit"), ("#c0392b", "#d1901f", "#1f5fa8")):
        at = [(r["nodes"], r["step_ms"]) for r in rows if r.get("mbit") == mbit or r["nodes"] == 1 and "mbit" in r]
        label = f"{mbit / 1000:g} Gbit/s"
        left.plot(*zip(*at), "o", color=colour, label=label)
        left.plot(many, [predicted(model, n, mbit, HOP_MS) for n in many], "-", color=colour, linewidth=1)
    for delay, marker in zip(values_of(rows, "delay_ms"), "osv^"):
        at = [(r["nodes"], r["step_ms"]) for r in rows if r.get("delay_ms") == delay]
        right.plot(*zip(*at), marker + "-", label=f"{delay:g} ms of delay", linewidth=1)
    for slots_of, style, label in ((lambda n: SLOTS, "-", f"{SLOTS} slots a step"),
                                   (lambda n: max(SLOTS, n), "--", f"weak scaling: as many slots as nodes, from {SLOTS} on")):
        work.plot(many, [slots_of(n) * 1000 / predicted(model, n, mbit, HOP_MS) for n in many], style, color=colour, label=label)
    left.set(title=f"nodes on limited cables (lines: the model, {HOP_MS:g} ms a hop)", xscale="log", yscale="log", xlabel="nodes",
             ylabel="ms a step")
    right.set(title="nodes through proxies that delay", xlabel="nodes", ylabel="ms a step", yscale="log")
    work.set(title=f"the model at {mbit / 1000:g} Gbit/s", xscale="log", yscale="log", xlabel="nodes", ylabel="slots a second")
    for axis in (left, right, work):
        axis.grid(alpha=0.3)
        axis.legend(loc="best" if axis is not work else "lower right")
    args.picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.picture, metadata={"Date": None})


def table(args, rows, model):
    def cell(nodes, **of):
        return next((f"{r['step_ms']:,.0f}" for r in rows if r["nodes"] == nodes and all(r.get(k) == v for k, v in of.items())), "")

    mbits, delays = values_of(rows, "mbit"), values_of(rows, "delay_ms")
    heads = [f"{mbit / 1000:g} Gbit/s" for mbit in mbits] + [f"proxies, {delay:g} ms" for delay in delays]
    lines = [f"Step times in ms; each node has {args.percent} % of a core.", "",
             "| nodes | " + " | ".join(heads) + " |", "|---:|" + "---:|" * len(heads)]
    for nodes in values_of(rows, "nodes"):
        cells = [cell(nodes, mbit=mbit) for mbit in mbits] + [cell(nodes, delay_ms=delay) for delay in delays]
        lines.append(f"| {nodes} | " + " | ".join(cells) + " |")
    (slots, whole, bits, hop), (waits, waits_a_node) = model
    errors = [abs(predicted(model, r["nodes"], r["mbit"]) / r["step_ms"] - 1) for r in rows if "mbit" in r]
    at = {nodes: predicted(model, nodes, mbits[-1], HOP_MS) for nodes in (SLOTS, 64, 1000)}
    lines += ["", f"The model, in ms for N nodes: {slots / SLOTS:,.1f} ceil({SLOTS} / N) + {whole:,.1f} + {bits / 1000:,.1f} * "
              f"2 (N-1)/N / (Gbit/s) + {hop:,.2f} (N-1) + ({waits:,.1f} + {waits_a_node:,.2f} (N-1)) * (ms of delay a way) + "
              f"{MEMBERSHIP_MBIT:,} (N/1000)^2 / (Gbit/s); without delay it is off by {100 * statistics.mean(errors):.0f} % on average, "
              f"{100 * max(errors):.0f} % at most. By it, at {mbits[-1] / 1000:g} Gbit/s and {HOP_MS:g} ms a way, a step of {SLOTS} "
              f"slots takes {at[SLOTS]:,.0f} ms on {SLOTS} nodes, {at[64]:,.0f} on 64 and {at[1000]:,.0f} on 1,000, "
              f"where all but {SLOTS} compute nothing; with as many slots as nodes, a step takes as long and does "
              f"{64 // SLOTS} and {1000 / SLOTS:g} times as much.",
              "", f"![Step times by nodes and networks]({args.picture.name})"]
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--troupe", type=pathlib.Path,
                        default=pathlib.Path(os.environ.get("TROUPE", ROOT / "build" / "release" / "troupe")))
    parser.add_argument("--nodes", nargs="+", type=int, default=[1, 2, 4, 8])
    parser.add_argument("--mbits", nargs="+", type=int, default=[100, 1000, 10000], help="of a cable, Mbit/s")
    parser.add_argument("--delays", nargs="*", type=float, default=[0, 0.1, 1, 20], help="of a way, ms")
    parser.add_argument("--percent", type=int, default=22, help="of a core, a node")
    parser.add_argument("--steps", type=int, default=32, help="of a run of 8 nodes; fewer nodes do fewer, at least 12")
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE",
                        help="measure another job: its step times are printed, and nothing is written")
    parser.add_argument("--json", type=pathlib.Path, default=ROOT / "build" / "release" / "bench_network.json")
    parser.add_argument("--picture", type=pathlib.Path, help="default: network.svg beside --docs")
    add_docs_option(parser)
    parser.add_argument("--again", action="store_true", help="only draw and write what --json holds")
    args = parser.parse_args()
    args.picture = args.picture or args.docs.parent / "network.svg"
    if not args.again and (os.geteuid() != 0 or not (GROUPS / "cpu.cfs_period_us").exists()):
        parser.error("network namespaces and CPU groups (cgroup v1 at /sys/fs/cgroup/cpu) need root and a kernel with both")
    if args.set:
        for setting in args.set:
            JOB.extend(["--set", setting])
        measure(args)
        return
    if args.again:
        result = json.loads(args.json.read_text())
    else:
        result = {"machine": machine(), "rows": measure(args)}
        args.json.write_text(json.dumps(result, indent=1) + "\n")
    rows, here = result["rows"], result["machine"]
    model = fit(rows)
    draw(args, rows, model)
    text = "\n".join([f"Measured {here['date']} on {here['cores']} cores ({here['cpu']}).", "", *table(args, rows, model)])
    write_section(args.docs, "network", "Nodes and networks", text)
    print(text)


if __name__ == "__main__":
    main()
