"""Where a SavedModel is."""

from __future__ import annotations

import pathlib

from tfvamp_cli import light


def newest_version(folder: pathlib.Path) -> tuple[pathlib.Path, str]:
    """Returns the SavedModel to serve, and its version."""
    if (folder / "saved_model.pb").is_file():
        return folder, folder.name if folder.name.isdigit() else "1"
    versions = [
        path for path in folder.glob("*/") if path.name.isdigit() and (path / "saved_model.pb").is_file()
    ]
    if not versions:
        raise light.errors.UsageError(
            f"{light.files.shown(folder)} is not a SavedModel and contains none: write one with tfvamp export RUN "
            "--output DIR"
        )
    newest = max(versions, key=lambda path: int(path.name))
    return newest, newest.name
