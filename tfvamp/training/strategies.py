"""The devices on which a run is trained: one, several of a machine, or those of several machines."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import socket
import threading
import time
from collections.abc import Callable

import tensorflow as tf

from tfvamp.config import TrainConfig
from tfvamp.errors import RunError, UsageError
from tfvamp.models import MODELS

JOIN_SECONDS = 300.0  # maximum time for which workers wait for each other
SECONDS_BETWEEN_TRIES = 0.5
CLIPS = ("clipnorm", "clipvalue", "global_clipnorm")  # arguments of Keras's optimisers
# Errors that TensorFlow raises in a step when another worker is gone.
GONE = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.DeadlineExceededError,
    tf.errors.CancelledError,
    tf.errors.InternalError,
)


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The contents of TF_CONFIG.

    Attributes:
      addresses: addresses of all workers, "host:port", the chief first.
      index: index of this worker.
    """

    addresses: list[str]
    index: int

    @property
    def chief(self) -> bool:
        """Whether this worker writes the run folder."""
        return self.index == 0


def cluster() -> Cluster | None:
    """Returns the cluster in the environment variable TF_CONFIG; None if it is not set.

    Raises:
      UsageError: its value is not what TensorFlow takes.
    """
    text = os.environ.get("TF_CONFIG", "").strip()
    if not text:
        return None
    try:
        document = json.loads(text)
        workers, task = document["cluster"], document["task"]
        chiefs, others = list(workers.get("chief", [])), list(workers.get("worker", []))
        kind, index = task["type"], task["index"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(
            'TF_CONFIG must be JSON such as {"cluster": {"worker": ["host0:2222", "host1:2222"]}, '
            f'"task": {{"type": "worker", "index": 0}}}}; got {text[:200]!r}'
        ) from error
    if unknown := set(workers) - {"chief", "worker"}:
        raise UsageError(
            f"TF_CONFIG names {sorted(map(str, unknown))[0]!r}: a cluster has a chief and workers alone"
        )
    addresses = [*chiefs, *others]
    for address in addresses:
        _, _, port = address.rpartition(":") if isinstance(address, str) else ("", "", "")
        if not port.isdigit() or not 0 < int(port) < 65536:
            raise UsageError(f"TF_CONFIG: an address must be host:port; got {address!r}")
    if len(set(addresses)) < len(addresses) or len(chiefs) > 1:
        raise UsageError("TF_CONFIG: each worker needs an address of its own, and there is at most one chief")
    own = {"chief": chiefs, "worker": others}.get(kind) if isinstance(kind, str) else None
    if own is None or not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < len(own):
        raise UsageError(f"TF_CONFIG: the task {kind!r} {index!r} is not in the cluster")
    return Cluster(addresses, index + (len(chiefs) if kind == "worker" else 0))


def is_chief(name: str) -> bool:
    """Returns whether this process writes the run folder, under the strategy `name`."""
    found = cluster() if name in ("auto", "multiworker") else None
    return found is None or found.chief


def workers(name: str) -> int:
    """Returns how many processes train together under the strategy `name`."""
    found = cluster() if name in ("auto", "multiworker") else None
    return 1 if found is None else len(found.addresses)


@dataclasses.dataclass(frozen=True)
class Devices:
    """The devices on which a run is trained.

    Attributes:
      strategy: TensorFlow's strategy; None for one device.
      chief: whether this process writes the run folder.
      workers: number of processes that train together.
    """

    strategy: tf.distribute.Strategy | None = None
    chief: bool = True
    workers: int = 1

    @property
    def count(self) -> int:
        """The number of devices."""
        return 1 if self.strategy is None else self.strategy.num_replicas_in_sync

    def scope(self) -> contextlib.AbstractContextManager:
        """Returns a context in which models are made for these devices."""
        return contextlib.nullcontext() if self.strategy is None else self.strategy.scope()


def devices_of(name: str, say: Callable[[str], None] = lambda text: None) -> Devices:
    """Returns the devices of a strategy.

    It must be called before anything is computed: TensorFlow requires this for several machines.

    Args:
      name: "one"; "mirrored" (all GPUs of the machine, or all logical CPUs if there is no GPU);
        "multiworker" (the machines in TF_CONFIG); or "auto", which is "multiworker" if TF_CONFIG
        names several, and "mirrored" if there are several GPUs.
      say: a function that gets one line of text about the workers that are waited for.

    Raises:
      UsageError: TF_CONFIG is missing or wrong.
      RunError: a worker does not join within five minutes.
    """
    found = cluster() if name in ("auto", "multiworker") else None
    if name == "multiworker" and found is None:
        raise UsageError(
            "--strategy multiworker needs the environment variable TF_CONFIG: see docs/devices.md"
        )
    if found is not None and (name == "multiworker" or len(found.addresses) > 1):
        return Devices(_multiworker(found, say), found.chief, len(found.addresses))
    gpus = tf.config.list_logical_devices("GPU")
    if name == "mirrored" or (name == "auto" and len(gpus) > 1):
        chosen = gpus or tf.config.list_logical_devices("CPU")
        return Devices(tf.distribute.MirroredStrategy([one.name for one in chosen]))
    return Devices()


def _multiworker(found: Cluster, say: Callable[[str], None]) -> tf.distribute.Strategy:
    deadline = time.monotonic() + JOIN_SECONDS
    meet(found, deadline, say)
    # Once all are there, TensorFlow's servers find each other at once. They would wait forever for one that is gone.
    joined = threading.Event()

    def watch() -> None:
        if not joined.wait(max(1.0, deadline - time.monotonic())):
            os.write(2, b"tfvamp: the workers did not join each other: start all of them again\n")
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    finally:
        joined.set()


def meet(found: Cluster, deadline: float, say: Callable[[str], None]) -> None:
    """Waits until every other worker can be reached, and can reach this one.

    Raises:
      RunError: one cannot be reached before the deadline, or this worker's address is not free.
    """
    own_host, _, own_port = found.addresses[found.index].rpartition(":")
    missing = [address for index, address in enumerate(found.addresses) if index != found.index]
    if not missing:
        return
    say(f"worker {found.index} of {len(found.addresses)} waits for the others")
    with socket.socket(socket.AF_INET) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(("", int(own_port)))
        except OSError as error:
            raise RunError(
                f"the port of {own_host}:{own_port} is not free ({error.strerror}): is this worker running?"
            ) from error
        listening.listen(len(found.addresses))
        while True:
            missing = [address for address in missing if not _is_reached(address)]
            if not missing:
                break
            if time.monotonic() > deadline:
                raise RunError(
                    f"the workers {', '.join(missing)} did not join within {JOIN_SECONDS:.0f} seconds: start all of them"
                )
            time.sleep(SECONDS_BETWEEN_TRIES)
        time.sleep(2 * SECONDS_BETWEEN_TRIES)  # workers that wait for this one find it


def _is_reached(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with contextlib.suppress(OSError):
        socket.create_connection((host.strip("[]"), int(port)), timeout=SECONDS_BETWEEN_TRIES).close()
        return True
    return False


def check(config: TrainConfig, num_examples: int, devices: Devices) -> None:
    """Raises UsageError for settings that cannot be used with several devices."""
    batch_size, on_nan, name = config.batch_size, config.on_nan, config.strategy
    if devices.count == 1:
        return
    if clipped := [one for one in config.optimizer_arguments or {} if one in CLIPS]:
        raise UsageError(
            f"{clipped[0]} would act on the gradient of each of {devices.count} devices, not on their sum: leave it out"
        )
    if MODELS[config.model].couples_images and 0 < num_examples % batch_size < devices.count:
        raise UsageError(
            f"the last batch of {num_examples} images has {num_examples % batch_size}, fewer than {devices.count} devices, "
            f"and the batch normalisation of {config.model} needs some on each: choose another --batch-size"
        )
    if batch_size < devices.count:
        raise UsageError(
            f"a batch of {batch_size} images cannot be divided among {devices.count} devices: raise --batch-size"
        )
    if on_nan == "skip":
        raise UsageError(f"--on-nan skip goes with one device, and --strategy {name} has {devices.count}")


class Agreement:
    """What the workers decide together after each step: whether a signal has come to one, and whether to save the state.

    Attributes:
      stopping: whether a signal has come to one of them.
      due: whether one of them wants the state to be saved.
    """

    def __init__(self, interrupted: Callable[[], bool], is_due: Callable[[], bool] = lambda: False):
        self._interrupted, self._is_due = interrupted, is_due
        self.stopping = self.due = False

    def flag(self) -> tf.Tensor:
        """Returns what this worker adds to the sum over the workers, a tensor [2]."""
        return tf.constant([float(self._interrupted()), float(self._is_due())])

    def take(self, total: tf.Tensor) -> None:
        """Uses the sum over the workers after a step, a tensor [2]."""
        stopping, due = (float(one) > 0.0 for one in total)
        self.stopping, self.due = self.stopping or stopping, due
