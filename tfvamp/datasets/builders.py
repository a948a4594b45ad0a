"""TFDS's builders, made only from their code, and what they know about prepared data."""

from __future__ import annotations

import contextlib
import glob
import os
import pathlib
import re
import stat
import threading
from typing import Any

import tensorflow_datasets as tfds

from tfvamp.errors import DataError, UsageError, hint
from tfvamp.files import LARGEST_JSON, expanded, printable, reason, shown, size

SHOWN = 10  # maximum number of configurations that are named
_patching = threading.RLock()


def registered(name: str, data_dir: str | os.PathLike | None) -> tfds.core.DatasetBuilder:
    """Returns the builder of a data set of TFDS, by "NAME" or "NAME/CONFIG".

    Only builders are used whose code is imported or belongs to TFDS: `tfds.builder` would also make
    one from the files in a data folder, and import the modules that these files name.

    Raises:
      UsageError: there is no such builder.
      DataError: the information on its prepared data is damaged.
    """
    match = re.fullmatch(r"(\w+)(?:/([\w.-]+))?", name)
    unknown = UsageError(f"TFDS knows no data set {name!r}: see tensorflow.org/datasets/catalog")
    if match is None:
        raise unknown
    try:
        kind: Any = tfds.core.registered.imported_builder_cls(
            tfds.core.naming.camelcase_to_snakecase(match[1])
        )
        configs = [config.name for config in kind.builder_configs.values()]
    except (
        tfds.core.registered.DatasetNotFoundError,
        TypeError,
        AssertionError,
    ) as error:  # of abstract ones
        raise unknown from error
    except Exception as error:  # a builder may need anything that is not here
        raise DataError(
            f"TFDS cannot import its data set {match[1]} ({type(error).__name__}: {reason(error)})"
        ) from error
    if match[2] is None:
        return opened(kind, data_dir)
    if not configs:
        raise UsageError(f"{match[1]} of TFDS has no configurations: leave out /{match[2]}")
    if match[2] not in configs:
        some = ", ".join(configs[:SHOWN])
        raise UsageError(
            f"{match[1]} of TFDS has no configuration {match[2]!r}.{hint(match[2], configs)} "
            f"It has {some} ({len(configs)} in all)."
        )
    return opened(kind, data_dir, config=match[2])


def opened(builder_class, data_dir: str | os.PathLike | None, **options: Any) -> tfds.core.DatasetBuilder:
    """Returns a builder with the information on its prepared data.

    Raises:
      DataError: the information is damaged.
    """
    root = expanded(data_dir or tfds.core.constants.DATA_DIR)
    try:
        _check_files(root / builder_class.name)
        with from_code():
            return builder_class(data_dir=None if data_dir is None else os.fspath(data_dir), **options)
    except DataError:
        raise
    except Exception as error:  # damaged files may lead to any error
        if os.path.exists(root / builder_class.name):
            raise damaged(root / builder_class.name, error) from error
        raise DataError(f"cannot open {builder_class.name} in {shown(root)} ({reason(error)})") from error


def _check_files(folder: pathlib.Path) -> None:
    """Raises OSError for prepared data that TFDS would never finish reading: pipes, devices, endless descriptions."""
    for pattern in ("*/*", "*/*/*"):  # VERSION/FILE or CONFIG/VERSION/FILE
        for name in glob.iglob(pattern, root_dir=folder):
            with contextlib.suppress(FileNotFoundError):  # a process may be preparing the data now
                status = os.stat(folder / name)
                if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
                    raise OSError(f"{printable(name)} is not a regular file")
                if name.endswith(".json") and status.st_size > LARGEST_JSON:
                    raise OSError(f"{printable(name)} has more than {size(LARGEST_JSON)}")


@contextlib.contextmanager
def from_code():
    """Makes TFDS build data sets only from their code.

    TFDS (4.9.10) reads features that a builder's code does not state from a file beside the data,
    and imports the modules that this file names. For data that are not prepared, it also leaves an
    empty folder in the system's temporary folder, meant for what a bucket knows about them; this is
    turned off.
    """

    def refuse(folder):
        raise DataError(f"cannot read {shown(folder)}: the code of its data set does not say what it holds")

    feature, info = tfds.features.FeatureConnector, tfds.core.DatasetInfo
    with _patching:
        read, look = vars(feature)["from_config"], info.initialize_from_bucket
        try:
            feature.from_config, info.initialize_from_bucket = staticmethod(refuse), lambda self: None
            yield
        finally:
            feature.from_config, info.initialize_from_bucket = read, look


def folder_of(builder: tfds.core.DatasetBuilder) -> pathlib.Path:
    """Returns the folder of a builder's data, prepared or not. (TFDS takes a `~` in TFDS_DATA_DIR for a name.)"""
    return expanded(builder.data_dir)


def recorded(info: tfds.core.DatasetInfo) -> dict[str, str]:
    """Returns the checksums that `sources.record` wrote, read back from the prepared data.

    Raises:
      DataError: they are damaged.
    """
    checksums = _metadata(info, "sources") or {}
    if not isinstance(checksums, dict):
        raise damaged(info.data_dir, TypeError())
    if not all(isinstance(text, str) and text.isprintable() for text in checksums.values()):
        raise damaged(info.data_dir, ValueError())
    return {printable(name): checksum for name, checksum in checksums.items()}


def verified(info: tfds.core.DatasetInfo) -> bool:
    """Returns whether the prepared data are made from the published files, as `sources.record` wrote."""
    return _metadata(info, "verified") is True


def _metadata(info: tfds.core.DatasetInfo, key: str):
    """Returns what `sources.record` wrote; None if it wrote nothing."""
    try:
        return info.metadata[key]  # `in` does not load TFDS's lazy metadata
    except (KeyError, TypeError):
        return None
    except Exception as error:  # damaged JSON may lead to any error
        raise damaged(info.data_dir, error) from error


def damaged(folder: str | os.PathLike, error: Exception) -> DataError:
    """Returns the error for prepared data that cannot be read."""
    if isinstance(error, OSError):
        return DataError(f"cannot read the prepared data in {shown(folder)} ({reason(error)})")
    return DataError(
        f"the prepared data in {shown(folder)} are damaged ({type(error).__name__}): "
        "delete that folder and run the command again"
    )
