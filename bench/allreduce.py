#!/usr/bin/env python3
"""Troupe's ring allreduce beside Gloo and Open MPI, alternating in one run; started by scripts/bench allreduce.

Processes of this machine, each system with all its settings, the best taken: bandwidth for large sums, time for small ones. The
plain sockets of the same run are the ceiling of what goes over TCP. Medians go to a JSON file and to a section of --docs.
"""
import argparse

from harness import ROOT, add_common_options, best_and_repeats, measure_all, median, spread

PEERS = ROOT / "build" / "peers"
MPI_ALGORITHMS = {"default": [], "ring": ["4"], "segmented ring": ["5"], "Rabenseifner": ["6"], "recursive doubling": ["3"]}
MPI_TRANSPORTS = {"tcp": ["self,tcp", "--mca", "btl_tcp_if_include", "lo"], "shm": ["self,vader"]}


def mpi(args, transport, processes, size, rounds):
    """Open MPI with each of its algorithms."""
    tries = []
    for name, number in MPI_ALGORITHMS.items():
        chosen = ["--mca", "coll_tuned_use_dynamic_rules", 1, "--mca", "coll_tuned_allreduce_algorithm", *number] if number else []
        tries.append([args.mpirun, "--allow-run-as-root", "--oversubscribe", "-np", processes, "--mca", "pml", "ob1", "--mca",
                      "btl", *MPI_TRANSPORTS[transport], *chosen, PEERS / "allreduce_openmpi", f"{transport}, {name}", size, rounds])
    return tries


def settings(args, transport, processes, size):
    rounds = min(max((1 << 30) // size, 8), 2000)
    common = [args.build / "bench_allreduce", "--processes", processes, "--bytes", size, "--rounds", rounds]
    out = {"troupe, exact": [[*common, "--transport", transport]],
           "troupe, float": [[*common, "--transport", transport, "--sum", "float"]]}
    if transport == "tcp":
        if size >= args.large:
            out["plain sockets"] = [[*common, "--transport", "link"]]
        if args.gloo:
            out["gloo"] = [[args.gloo, mode, processes, size, rounds] for mode in ("ring", "bcube")]
    if args.mpirun:
        out["openmpi"] = mpi(args, transport, processes, size, rounds)
    return out


def measure(args, transport, processes, size):
    key, best = ("gb_per_s", max) if size >= args.large else ("us", min)
    results = best_and_repeats(settings(args, transport, processes, size), lambda result: result["mode"], args.repeats,
                               f"{processes} processes, {transport}, {size >> 10} KiB", key, best)
    return [{"processes": processes, "transport": transport, "bytes": size, "system": system,
             "version": values[-1].get("version", ""), "setting": values[-1]["mode"], "gb_per_s": median(values, "gb_per_s"),
             "us": median(values, "us"), "all_us": [value["us"] for value in values]} for system, values in results.items()]


def table(rows, _):
    lines = ["| processes | transport | size | system | setting | GB/s (bus) | us | min - max us | speed beside the best peer | "
             "share of sockets |",
             "|---:|---|---:|---|---|---:|---:|---:|---:|---:|"]
    for row in rows:
        same = [r for r in rows if all(r[k] == row[k] for k in ("processes", "transport", "bytes"))]
        ours = row["system"].startswith("troupe")
        peers = [r["us"] for r in same if r["system"] in ("gloo", "openmpi")]
        sockets = [r["gb_per_s"] for r in same if r["system"] == "plain sockets"]
        ratio = f"{min(peers) / row['us']:.2f}" if ours and peers else ""
        share = f"{100 * row['gb_per_s'] / sockets[0]:.0f} %" if ours and sockets else ""
        us = " | " if row["system"] == "plain sockets" else f"{row['us']:,.0f} | {spread(row['all_us'])}"
        lines.append(f"| {row['processes']} | {row['transport']} | {row['bytes'] >> 10:,} KiB | {row['system']} {row['version']} | "
                     f"{row['setting']} | {row['gb_per_s']:.2f} | {us} | {ratio} | {share} |")
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common_options(parser, "allreduce")
    parser.add_argument("--processes", nargs="+", type=int, default=[2, 4])
    parser.add_argument("--transports", nargs="+", default=["tcp", "shm"], choices=["tcp", "shm"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[4 << 10, 1 << 20, 64 << 20], help="in bytes")
    parser.add_argument("--large", type=int, default=1 << 20, help="sizes from here on are compared by bandwidth, others by time")
    parser.add_argument("--gloo", help="the peer's program; without it the peer is left out")
    parser.add_argument("--mpirun", help="Open MPI's; without it the peer is left out")
    args = parser.parse_args()
    measure_all(args, "allreduce", "Allreduce",
                lambda: [row for processes in args.processes for transport in args.transports for size in args.sizes
                         for row in measure(args, transport, processes, size)], table)


if __name__ == "__main__":
    main()
