"""Runs of a sweep as tasks of Ray, each an ordinary run folder on a disk that all machines see."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence
from typing import Any

import ray
import ray.exceptions

from tfvamp.sweeps.workers import command_line, cores, environment, open_log


def _carried_out(commands: Sequence[Sequence[str]], log: str, folder: str, variables: dict[str, str]) -> int:
    """Runs commands one after the other; returns the exit status of the last one, or of the first one that failed."""
    import subprocess

    status = 0
    for words in commands:
        with open_log(pathlib.Path(log)) as file:
            process = subprocess.Popen(
                command_line(words),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                cwd=folder,
                env={**os.environ, **variables},
            )
            try:
                status = process.wait()
            except BaseException:  # cancelled: it saves what it has
                process.terminate()
                process.wait()
                raise
        if status:
            break
    return status


class RayWorkers:
    """Workers that are tasks of Ray.

    Args:
      jobs: number of runs at a time; each asks for its share of this machine's cores.
      address: address of a cluster; None starts one on this machine.
    """

    def __init__(self, jobs: int, address: str | None = None):
        ray.init(address=address, log_to_driver=False, include_dashboard=False, ignore_reinit_error=True)
        share = max(1, cores() // jobs)
        self._variables = {name: value for name, value in environment(jobs).items() if name not in os.environ}
        self._task = ray.remote(num_cpus=share, max_retries=0)(_carried_out)

    def start(self, commands: Sequence[Sequence[str]], log: pathlib.Path) -> Any:
        return self._task.remote(commands, os.path.abspath(log), os.getcwd(), self._variables)

    def ended(self, handle: Any) -> int | None:
        done, _ = ray.wait([handle], timeout=0)
        if not done:
            return None
        try:
            return ray.get(handle)
        except (ray.exceptions.TaskCancelledError, ray.exceptions.RayTaskError, KeyboardInterrupt):
            return 143
        except ray.exceptions.RayError:
            return 1

    def stop(self, handle: Any) -> None:
        ray.cancel(handle)

    def close(self) -> None:
        ray.shutdown()
