"""Reports without the folders of the machine that a run was trained on."""

from __future__ import annotations

import dataclasses
import re
import shlex

from tfvamp.config import OWN
from tfvamp.reports.contents import Contents


def hidden(contents: Contents) -> Contents:
    """Returns the contents of a report in which paths are replaced by their last part."""
    document = contents.document
    settings, spec = document.settings, document.spec
    if settings.dataset.startswith(OWN) and not settings.dataset.startswith("tfds:"):
        settings = dataclasses.replace(settings, dataset=_of_word(settings.dataset))
        spec = dataclasses.replace(spec, name=_of_word(spec.name))
    shown = dataclasses.replace(
        document,
        settings=settings,
        spec=spec,
        sources={name.rpartition("/")[2]: digest for name, digest in document.sources.items()},
        command=of_command(document.command),
    )
    return dataclasses.replace(contents, document=shown, notes=[of_text(note) for note in contents.notes])


def of_command(command: str) -> str:
    """Returns a command line with the paths replaced by their last part.

    >>> of_command("tfvamp train --dataset npz:/data/a.npz --run-dir=runs/b")
    'tfvamp train --dataset npz:a.npz --run-dir=b'
    """
    try:
        return shlex.join(_of_word(word) for word in shlex.split(command))
    except ValueError:  # no command that a shell takes
        return "?"


def of_text(text: str) -> str:
    """Returns a sentence with the paths, in quotes or not, replaced by their last part."""
    return re.sub(r"'[^']*/[^']*'|\S+", lambda found: _of_word(found[0].strip("'")), text)


def _of_word(word: str) -> str:
    start, place = "", word
    for mark in ("=", ":"):
        before, found, after = place.partition(mark)
        if found and "/" not in before:
            start, place = f"{start}{before}{found}", after
    return start + (place.rstrip("/").rpartition("/")[2] if "/" in place else place)
