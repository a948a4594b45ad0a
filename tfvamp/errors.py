"""Errors, each explained in one line: the CLI prints the text and uses the exit code."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TfvampError(Exception):
    """The job failed for a reason that the text explains. Exit code 1."""

    exit_code = 1


class UsageError(TfvampError, ValueError):
    """The caller asked for something that does not exist or does not fit. Exit code 2."""

    exit_code = 2


class FileError(TfvampError):
    """A file cannot be read or written, or is damaged."""


class DataError(TfvampError):
    """A data set is missing, damaged or does not fit the model."""


class RunError(TfvampError):
    """A run folder is missing, damaged, in use, or not a run folder."""


class TrainingError(TfvampError):
    """Training cannot continue."""


def check_choice(kind: str, name: str, choices: Iterable[str]) -> None:
    """Raises UsageError with the choices, and the nearest one, unless `name` is among them."""
    choices = list(choices)
    if name not in choices:
        raise UsageError(
            f"unknown {kind} {name[:100]!r}.{hint(name, choices)} Choose one of: {', '.join(choices)}."
        )


def hint(name: str, choices: Iterable[str]) -> str:
    """Returns a sentence that suggests the choice nearest to a mistyped name; empty if none is near."""
    nearest = difflib.get_close_matches(name[:100], list(choices), n=1)
    return f" Did you mean {nearest[0]!r}?" if nearest else ""
