"""The contents of config.json, checked: a file from elsewhere may contain anything."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

from tfvamp.config import TrainConfig, fields
from tfvamp.datasets import CATALOG, DatasetSpec
from tfvamp.errors import RunError
from tfvamp.files import printable, shown
from tfvamp.models import MODELS
from tfvamp.runs import owner

LARGEST_SIDE = 2**16  # of an image in pixels


@dataclasses.dataclass(frozen=True)
class Document:
    """The contents of config.json, checked.

    Attributes:
      settings: the resolved settings.
      spec: the description of the data set.
      sources: sha256 of each source file of the data.
      verified: whether these files are the published ones; None if that is not known.
      versions: versions of Python and of packages at the start of training.
      command: the command line.
      started: when training started.
      resumed_from: `versions`, `command` and `started` of the trainings that were resumed.
      networks_version: version of the model's networks.
      own: whether this user wrote the run on this machine.
      raw: config.json as it is.
    """

    settings: TrainConfig
    spec: DatasetSpec
    sources: dict[str, str]
    verified: bool | None
    versions: dict[str, str]
    command: str
    started: str
    resumed_from: list[dict[str, Any]]
    networks_version: int
    own: bool
    raw: dict[str, Any]


def checked(raw: dict[str, Any], path: pathlib.Path, run: str) -> Document:
    """Returns the contents of config.json.

    Args:
      raw: the contents that were read.
      path: the file that they were read from.
      run: the run folder, as it is shown.

    Raises:
      RunError: the contents are not those of a run, or the weights mean something else in this
        version of the networks.
      UsageError: a setting has a value that does not exist.
    """

    def damaged(what: str) -> RunError:
        return RunError(f"{shown(path)} is damaged: {what}")

    def entry(name: str, kind: type, place: dict, default: Any = None) -> Any:
        value = place.get(name, default)
        if not isinstance(value, kind):
            raise damaged(f"{name} must be of type {kind.__name__}")
        return value

    settings, data = entry("settings", dict, raw), entry("data", dict, raw)
    known = {field.name for field, _ in fields()}
    if unknown := [name for name in settings if name not in known]:
        raise RunError(
            f"{shown(path)} has the setting {printable(str(unknown[0]))[:60]!r}, which this version of tfvamp does not know: "
            "it was written by a newer one, or is damaged"
        )
    config = TrainConfig.from_dict(settings)
    for name in ("learning_rate", "likelihood", *(["components"] if config.mixture else [])):
        if getattr(config, name) is None:
            raise damaged(f"the setting {name!r} is missing")
    sources, versions = entry("sources", dict, data, {}), entry("versions", dict, raw, {})
    if not all(isinstance(part, str) for pair in [*sources.items(), *versions.items()] for part in pair):
        raise damaged("sources and versions must be texts")
    verified = data.get("verified")
    if verified is not None and not isinstance(verified, bool):
        raise damaged("data.verified must be true, false or null")
    resumed = entry("resumed_from", list, raw, [])
    version, wanted = raw.get("networks_version", 1), MODELS[config.model].networks_version
    if version != wanted or isinstance(version, bool):
        raise RunError(
            f"{run} was trained with version {str(version)[:20]} of the networks of {config.model}, whose weights mean "
            f"something else in version {wanted}, which this tfvamp has: train it again"
        )
    spec = CATALOG[config.dataset] if config.dataset in CATALOG else _spec(data)
    if spec is None:
        shape = str(data.get("shape"))[:60]
        raise damaged(f"data.spec is not that of a data set, or data.shape not its [H, W, C]; got {shape}")
    return Document(
        settings=config,
        spec=spec,
        sources=sources,
        verified=verified,
        versions=versions,
        command=entry("command", str, raw, "?"),
        started=entry("started", str, raw, "?"),
        resumed_from=[one for one in resumed if isinstance(one, dict)],
        networks_version=version,
        own=owner.is_own(settings, raw.get("signature")),
        raw=raw,
    )


def _spec(data: dict[str, Any]) -> DatasetSpec | None:
    """Returns the description of the user's own images; None if it is damaged."""
    stored = data.get("spec")
    shape: Any = data.get("shape")
    if not isinstance(stored, dict):
        return None
    try:
        settings: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in stored.items()}
        spec = DatasetSpec(**settings)
    except TypeError:
        return None
    whole = isinstance(shape, list) and [type(side) for side in shape] == [int] * 3
    if not whole or not 1 <= min(shape) <= max(shape) <= LARGEST_SIDE or tuple(shape) != spec.shape:
        return None
    sizes = spec.sizes if isinstance(spec.sizes, tuple) else ()
    if not isinstance(spec.name, str) or [type(size) for size in sizes] != [int] * 3 or min(sizes) < 1:
        return None
    return dataclasses.replace(spec, shape=tuple(shape))
