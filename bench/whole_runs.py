"""Whole runs of `troupe train` on made-up pairs: of the jobs small and base, with the vocabularies of bench_train."""
import math
import pathlib
import subprocess
import sys
import tempfile

from harness import ROOT, last_json
from made_up import write_pairs

VOCABULARY = {"small": 8192, "base": 32000}
STEPS = {"small": 48, "base": 12}


def prepare(troupe, work, jobs):
    """A dataset a job, of the same pairs, in `work`."""
    write_pairs(work / "pairs.tsv", 20000, 60000, 40)
    for job in jobs:
        done = subprocess.run([troupe, "prepare", "--tsv", work / "pairs.tsv", "--out", work / job, "--vocabulary",
                               str(VOCABULARY[job]), "--valid", "100", "--test", "100"], capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"{troupe} prepare: {done.stderr.strip().splitlines()[-1]}")


def slots(*threads):
    """The fewest of a step, but eight at least as in the jobs, that each of these numbers of threads can share out evenly."""
    together = math.lcm(*threads)
    return -(-8 // together) * together


def train(troupe, work, job, nodes, threads, steps=0, **settings):
    """The last report of a run: tokens a second after the first quarter of its steps, and the digest. None when it failed."""
    steps = steps or STEPS[job]
    settings |= {"evaluation.every": 0, "checkpoint.every": 0, "report.every": max(1, steps // 4)}
    with tempfile.TemporaryDirectory(dir=work) as out:
        return last_json([troupe, "train", "--job", ROOT / "examples" / "jobs" / f"{job}.toml", "--data", work / job, "--out",
                          pathlib.Path(out) / "run", "--nodes", nodes, "--threads", threads, "--steps", steps, "--json",
                          *(word for key, value in settings.items() for word in ("--set", f"{key}={value}"))])
