"""Options: those of training, made from the fields of `TrainConfig`, and those that several commands share."""

from __future__ import annotations

import dataclasses
import glob
from collections.abc import Callable, Iterable
from typing import Any

import click

from tfvamp_cli import light


def of_settings(names: Iterable[str] | None = None, settings: type = light.config.TrainConfig) -> Callable:
    """Returns a decorator that gives a command an option for each setting, or for those named."""
    chosen = [
        (field, hint)
        for field, hint in light.config.fields(settings)
        if field.metadata["option"] and (names is None or field.name in names)
    ]

    def decorate(command: Callable) -> Callable:
        for field, hint in reversed(chosen):
            command = _option(field, hint)(command)
        return command

    return decorate


def given(ctx: click.Context, values: dict[str, Any]) -> dict[str, Any]:
    """Returns those values of a command that were typed."""
    typed = click.core.ParameterSource.COMMANDLINE
    return {name: value for name, value in values.items() if ctx.get_parameter_source(name) is typed}


def _option(field: dataclasses.Field, hint: Any) -> Callable:
    name, known = field.name.replace("_", "-"), field.metadata
    types = light.config.allowed_types(hint)
    default = known["unset"] if field.default is None else field.default
    help = f"{known['help']}  [default: {default}]" if default not in (None, False) else known["help"]
    if bool in types:
        declared = f"--{name}/--no-{name}"
        return click.option(declared, field.name, is_flag=True, default=field.default, help=help)
    kind = next(one for one in types if one is not type(None))
    return click.option(
        f"--{name}", field.name, type=kind, default=field.default, metavar=known["metavar"], help=help
    )


def check_runs(*runs: str) -> None:
    """Raises RunError for a run that is not there, before TensorFlow is imported; patterns are looked at later."""
    for run in runs:
        if not glob.has_magic(run):
            light.files.check_run(run)


def check_images(name: str, image_size: Any) -> None:
    """Raises DataError or UsageError for own images that are not there or need a size, before TensorFlow is imported."""
    kind, _, place = name.partition(":")
    if kind in ("folder", "npz") and place:
        light.files.check_images(place, kind == "folder")
    if kind == "folder" and image_size is None:
        raise light.errors.UsageError(light.config.NEEDS_SIZE)


def _place_of_images(ctx: click.Context, parameter: click.Parameter, name: str | None) -> str | None:
    """Refuses a data set that cannot be a run's, before TensorFlow is imported; a folder's images may be kept as prepared."""
    if name is not None and not name.startswith(light.config.OWN):
        light.config.check_dataset(name)
    if name is not None and name.startswith("npz:"):
        check_images(name, None)
    return name


run = click.argument("run", metavar="RUN")
runs = click.argument("runs", nargs=-1, required=True, metavar="RUN...")
seed = click.option(
    "--seed",
    type=click.IntRange(0, light.config.LARGEST_SEED),
    default=0,
    show_default=True,
    help="Random seed: the same seed gives the same result.",
)
split = click.option(
    "--split",
    metavar="NAME",
    default="test",
    show_default=True,
    help=f"Split: {light.config.listed(light.config.SPLITS)}.",
)
limit = click.option("--limit", type=int, metavar="N", help="Use at most N images, for a quick look.")
dataset = click.option(
    "--dataset",
    metavar="NAME",
    callback=_place_of_images,
    help="Where your own images are now: npz:FILE, folder:DIR or tfds:NAME.  [default: the run's]",
)
data_dir = click.option("--data-dir", metavar="DIR", help="Folder of prepared data.  [default: the run's]")
raw_dir = click.option(
    "--raw-dir", metavar="DIR", help="Folder with source files that you fetched.  [default: the run's]"
)
device = of_settings(["device"])
jobs = click.option(
    "--jobs",
    type=click.IntRange(1, 1024),
    metavar="N",
    default=1,
    show_default=True,
    help="Number of runs at a time; they share the cores.",
)


no_title = click.option("--no-title", is_flag=True, help="Leave out the titles, for a paper.")
dpi = click.option(
    "--dpi", type=int, metavar="N", default=120, show_default=True, help="Dots per inch of images."
)
columns = click.option(
    "--columns", type=int, metavar="N", help="Columns in grids of images.  [default: about as many as rows]"
)


def of_data(command: Callable) -> Callable:
    """Adds the options that say where the data of a run are now."""
    for option in (raw_dir, data_dir, dataset):
        command = option(command)
    return command
