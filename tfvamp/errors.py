"""What can go wrong, in one line each: the CLI prints the text and takes the exit code."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TfvampError(Exception):
    """The job failed for a reason that the text explains. Exit code 1."""

    exit_code = 1


class UsageError(TfvampError, ValueError):
    """The caller asked for something that does not exist or does not fit. Exit code 2."""

    exit_code = 2


class DataError(TfvampError):
    """A data set is missing, damaged or does not fit the model."""


class RunError(TfvampError):
    """A run folder is missing, is not one, or is already taken."""


class TrainingError(TfvampError):
    """Training cannot go on."""


def printable(text: str) -> str:
    """A text from a file in one line that a terminal only shows: no line breaks, escape codes or lone surrogates."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))


def check_choice(kind: str, name: str, choices: Iterable[str]) -> None:
    """Raises UsageError with the choices, and the nearest one, unless `name` is among them."""
    choices = list(choices)
    if name in choices:
        return
    nearest = difflib.get_close_matches(name, choices, n=1)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    raise UsageError(f"unknown {kind} {name!r}.{hint} Choose one of: {', '.join(choices)}.")
