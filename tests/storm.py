"""Commands in processes that are killed at a chosen file event, without importing TensorFlow for each.

`python -m tests.storm` imports tfvamp once and forks a child for each line that it reads: a JSON object with `words` of the
command line, and `kill_at` (a number of file events), `kill_after` (seconds), `eager`, `folder` (to be in), `python` (a
program that runs before the command line, or without one), or `watched` and `copies` (folders: before each file event, a copy of the first is
made in the second). It answers with the exit `status` (minus the signal), the number of `events`, and what the command wrote
to the standard output and error streams. With `detach` it answers with the `pid` at once, and with the rest to the line
`{"wait": pid}`.
"""

import gc
import json
import mmap
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable

EVENTS = ("replace", "rename", "unlink", "rmdir", "fsync", "mkdir", "ftruncate")


class Storm:
    """Runs command lines through `python -m tests.storm`."""

    def __init__(self, **environment):
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.storm"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=os.path.dirname(os.path.dirname(os.path.abspath(__file__))),
            env={**os.environ, **environment},
        )

    def __call__(self, *words, **how) -> dict:
        return self._ask({"words": [str(word) for word in words], **how})

    def wait(self, pid: int) -> dict:
        """How a command ended that was detached."""
        return self._ask({"wait": pid})

    def _ask(self, request: dict) -> dict:
        print(json.dumps(request, default=str), file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())

    def close(self):
        self._process.stdin.close()
        self._process.wait(timeout=60)


def _watch_events(counter, before_each: Callable[[int], None]) -> None:
    """Counts file events in shared memory; `before_each` is told the number of each before it happens."""
    from tfvamp import files

    counting = True

    def counted(function):
        def call(*arguments, **keywords):
            nonlocal counting
            if counting:
                counter[0] += 1
                counting = False  # what `before_each` does is no event
                before_each(counter[0])
                counting = True
            return function(*arguments, **keywords)

        return call

    for name in EVENTS:
        setattr(os, name, counted(getattr(os, name)))
    files._exchange = counted(files._exchange)


def _before_each(request: dict) -> Callable[[int], None]:
    """What is done before each file event: a kill, or a copy of the folder as a kill would leave it."""

    def kill(event: int) -> None:
        if event == request.get("kill_at"):
            os.kill(os.getpid(), signal.SIGKILL)

    def copy(event: int) -> None:
        shutil.copytree(request["watched"], os.path.join(request["copies"], f"{event:03d}"), symlinks=True)

    return copy if "watched" in request else kill


def small_blocks(setattr) -> None:
    """Evaluations and pictures of a few images, op by op: blocks are padded to a size that fits, as each image's noise is drawn by itself."""
    from tfvamp.evaluation import images, importance, needs
    from tfvamp.runs import commands

    for module in (images, needs):
        setattr(module, "AT_ONCE", 8)
    setattr(importance, "WEIGHED", 4)
    setattr(commands, "NUM_MAPPED", 64)


def _child(request: dict, counter, output: int, errors: int) -> None:
    import tensorflow as tf

    from tfvamp_cli.main import main

    os.dup2(errors, 2)
    os.dup2(output, 1)
    os.chdir(request.get("folder", "."))
    if request.get("eager", True):
        tf.config.run_functions_eagerly(True)
        small_blocks(setattr)
    sys.argv = ["tfvamp", *request["words"]]
    exec(request.get("python", ""), {"__name__": "__main__"})
    if request["words"]:
        _watch_events(counter, _before_each(request))
        main(request["words"])


def _nameless_file() -> int:
    descriptor, path = tempfile.mkstemp()
    os.unlink(path)
    return descriptor


def _read(descriptor: int) -> str:
    """The contents of a file, which is closed."""
    with os.fdopen(descriptor, "rb") as file:
        file.seek(0)
        return file.read().decode(errors="replace")


class Child:
    """A forked process, which runs a command line."""

    def __init__(self, request: dict):
        self._events = memoryview(mmap.mmap(-1, 8)).cast("q")
        self._output, self._errors = _nameless_file(), _nameless_file()
        self.pid = os.fork()
        if self.pid == 0:
            self._run(request)

    def _run(self, request: dict) -> None:
        try:
            _child(request, self._events, self._output, self._errors)
            status = 0
        except SystemExit as end:
            status = end.code or 0
        except BaseException:
            traceback.print_exc()
            status = 70
        sys.stdout.flush()
        os._exit(status)

    def answer(self) -> dict:
        """Waits until it ends, and says how."""
        _, status = os.waitpid(self.pid, 0)
        return {
            "status": os.waitstatus_to_exitcode(status),
            "events": self._events[0],
            "stdout": _read(self._output),
            "stderr": _read(self._errors),
        }


def serve() -> None:
    gc.disable()
    import tfvamp  # noqa: F401 (what the children share)

    gc.freeze()  # a child that collected garbage would copy all of it
    gc.enable()

    detached: dict[int, Child] = {}
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            answer = detached.pop(request["wait"]).answer()
        else:
            child = Child(request)
            if (seconds := request.get("kill_after")) is not None:
                time.sleep(seconds)
                os.kill(child.pid, signal.SIGKILL)
            if request.get("detach"):
                detached[child.pid] = child
                answer = {"pid": child.pid}
            else:
                answer = child.answer()
        print(json.dumps(answer), flush=True)
    for child in detached.values():  # whoever asked is gone
        os.kill(child.pid, signal.SIGKILL)


if __name__ == "__main__":
    serve()
