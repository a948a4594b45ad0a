"""Interleaved timing of workers, each in a process of its own, that wait while others run.

A worker reads one JSON task a line on standard input and answers with one line, the seconds
of one unit of it; the harness asks every worker in turn, five rounds, and takes medians.
"""

from __future__ import annotations

import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent
RESULTS = ROOT / "docs" / "performance.json"
PEER_PYTHON = ROOT / ".venv-peer" / "bin" / "python"  # made by `make bench`
THREADS = "2"
# The sizes of the paper: K components, batch, latents, hidden units, pixels, importance samples.
SIZES = {"K": 500, "B": 100, "D": 40, "H": 300, "X": 784, "S": 5000}


class Worker:
    """A process that times tasks when asked to."""

    def __init__(self, name: str, script: str, python: str | pathlib.Path = sys.executable, *words: str):
        environment = os.environ | {
            "OMP_NUM_THREADS": THREADS,
            "OPENBLAS_NUM_THREADS": THREADS,
            "TF_NUM_INTRAOP_THREADS": THREADS,
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }
        self.name = name
        self._process = subprocess.Popen(
            [str(python), str(HERE / script), *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )

    def seconds(self, task: dict) -> float:
        """The seconds of one unit of the task."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps({**SIZES, **task}) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the worker {self.name} died: run its script by hand to see why")
        return float(answer)


def serve(tasks: dict) -> None:
    """The worker's side: answers tasks, {name: function of the sizes giving seconds}, until the input ends."""
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever libraries print does not get between the answers
    for line in sys.stdin:
        task = json.loads(line)
        print(tasks[task["name"]](task), file=out)


def interleave(entries: list[tuple[str, Worker, dict]], rounds: int) -> dict[str, float]:
    """Median seconds of each labelled task, the workers asked in turn; one round before does not count."""
    seen: dict[str, list[float]] = {label: [] for label, _, _ in entries}
    for number in range(rounds + 1):
        for label, worker, task in entries:
            value = worker.seconds(task)
            if number:
                seen[label].append(value)
            print(f"  round {number}/{rounds}  {label:<44} {1e3 * value:9.2f} ms", flush=True)
    return {label: statistics.median(values) for label, values in seen.items()}


def report(name: str, medians: dict[str, float], reference: str, rounds: int, unit: str, keep: bool) -> None:
    """Prints times and ratios to the reference; keeps them, if asked, in docs/performance.json and .md."""
    for label, seconds in medians.items():
        print(f"{label:<46} {1e3 * seconds:9.2f} ms  {seconds / medians[reference]:6.2f} x {reference}")
    if not keep:
        return
    document = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    document[name] = {
        "unit": unit,
        "rounds": rounds,
        "threads": int(THREADS),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "reference": reference,
        "milliseconds": {label: round(1e3 * seconds, 3) for label, seconds in medians.items()},
        "ratio_to_reference": {label: round(s / medians[reference], 3) for label, s in medians.items()},
    }
    RESULTS.write_text(json.dumps(document, indent=2) + "\n")
    page = RESULTS.with_suffix(".md")
    before, mark, _ = page.read_text().partition("<!-- measured -->\n")
    page.write_text(before + mark + "\n".join(_tables(document)) + "\n")


def _tables(document: dict):
    for name, entry in document.items():
        yield f"\n## {name}\n"
        rounds = entry["rounds"]
        how = f"median of {rounds} interleaved rounds" if rounds > 1 else "one run"
        yield f"Milliseconds for {entry['unit']}; {how},"
        yield f"{entry['threads']} threads each, {entry['machine']}, Python {entry['python']}.\n"
        yield f"| | ms | times {entry['reference']} |"
        yield "|---|---|---|"
        for label, milliseconds in entry["milliseconds"].items():
            yield f"| {label} | {milliseconds:.2f} | {entry['ratio_to_reference'][label]:.2f} |"
