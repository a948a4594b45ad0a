"""Run folders: open one as a `Run`, then evaluate, encode or plot it."""

from tfvamp.runs.commands import encode, evaluate, plot
from tfvamp.runs.comparing import compare
from tfvamp.runs.diagnose import diagnose
from tfvamp.runs.run import Run, as_run, find_runs, load, rate_distortion

__all__ = [
    "Run",
    "as_run",
    "compare",
    "diagnose",
    "encode",
    "evaluate",
    "find_runs",
    "load",
    "plot",
    "rate_distortion",
]
