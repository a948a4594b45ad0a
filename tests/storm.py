"""Commands in processes that are killed at a chosen file event, without importing TensorFlow for each.

`python -m tests.storm` imports tfvamp once and forks a child for each line that it reads: a JSON object with `words` of the
command line, and `kill_at` (a number of file events), `kill_after` (seconds) or `eager`. It answers with the exit `status`
(minus the signal), the number of `events`, and what the command wrote to the standard error stream.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time

EVENTS = ("replace", "rename", "unlink", "rmdir", "fsync", "mkdir", "ftruncate")


class Storm:
    """Runs command lines through `python -m tests.storm`."""

    def __init__(self, **environment):
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.storm"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )

    def __call__(self, *words, **how) -> dict:
        print(
            json.dumps({"words": [str(word) for word in words], **how}), file=self._process.stdin, flush=True
        )
        return json.loads(self._process.stdout.readline())

    def close(self):
        self._process.stdin.close()
        self._process.wait(timeout=60)


def _count_events(counter, kill_at: int | None):
    """Counts file events in shared memory; SIGKILL before event `kill_at`."""
    from tfvamp import files

    def counted(function):
        def call(*arguments, **keywords):
            counter[0] += 1
            if counter[0] == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **keywords)

        return call

    for name in EVENTS:
        setattr(os, name, counted(getattr(os, name)))
    files._exchange = counted(files._exchange)


def _child(request: dict, counter, errors: str) -> None:
    import tensorflow as tf

    from tfvamp_cli.main import main

    os.dup2(os.open(errors, os.O_WRONLY), 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    tf.config.run_functions_eagerly(bool(request.get("eager", True)))
    _count_events(counter, request.get("kill_at"))
    sys.argv = ["tfvamp", *request["words"]]
    main(request["words"])


def serve() -> None:
    import mmap

    import tfvamp  # noqa: F401 (what the children share)

    for line in sys.stdin:
        request = json.loads(line)
        shared = memoryview(mmap.mmap(-1, 8)).cast("q")
        with tempfile.NamedTemporaryFile() as errors:
            child = os.fork()
            if child == 0:
                try:
                    _child(request, shared, errors.name)
                except SystemExit as end:
                    sys.stdout.flush()
                    os._exit(end.code or 0)
                except BaseException as error:
                    print(repr(error), file=sys.stderr)
                    os._exit(70)
                os._exit(0)
            if (seconds := request.get("kill_after")) is not None:
                time.sleep(seconds)
                os.kill(child, signal.SIGKILL)
            if request.get("detach"):
                print(json.dumps({"pid": child}), flush=True)
                continue
            _, status = os.waitpid(child, 0)
            text = errors.read().decode(errors="replace")
        answer = {"status": os.waitstatus_to_exitcode(status), "events": shared[0], "stderr": text}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    serve()
