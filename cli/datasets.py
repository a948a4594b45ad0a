"""tfvamp datasets."""

from __future__ import annotations

import functools
import shlex

import click

from tfvamp_cli import light, options
from tfvamp_cli.groups import SuggestingGroup
from tfvamp_cli.output import console

data_dir = click.option("--data-dir", metavar="DIR", help="Folder of prepared data.  [default: TFDS's]")
raw_dir = click.option(
    "--raw-dir",
    metavar="DIR",
    help="Folder with source files that you fetched, used instead of a download.  [env: TFVAMP_RAW_DIR]",
)
name = click.argument("name", metavar="NAME")


def of_images(*names: str):
    """Returns the options of your own images, as in `tfvamp train`."""
    return options.of_settings(names)


@click.group("datasets", cls=SuggestingGroup)
def command():
    """List, show and prepare data sets.

    \b
    Examples:
      tfvamp datasets list
      tfvamp datasets prepare frey_faces --raw-dir ~/downloads
      tfvamp datasets info caltech101 --picture caltech101.png
      tfvamp datasets info folder:pictures --image-size 64x64
    """


@command.command("list")
@data_dir
def list_(data_dir):
    """List the data sets: shape, sizes, likelihood, whether prepared, source and licence."""
    from tfvamp import datasets, describe
    from tfvamp.errors import DataError

    rows = [("name", "shape", "train/val/test", "likelihood", "prepared", "what, and from where")]
    for spec in datasets.CATALOG.values():
        try:
            prepared = "yes" if describe.is_prepared(spec, data_dir) else "no"
        except DataError:
            prepared = "damaged"
        shape, sizes = "x".join(map(str, spec.shape)), "/".join(map(str, spec.sizes))
        how = f"{spec.likelihood}, dynamic" if spec.binarization == "dynamic" else spec.likelihood
        rows.append((spec.name, shape, sizes, how, prepared, f"{spec.title}; {spec.source}"))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    for row in rows:
        click.echo(
            "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[5]])
        )
    click.echo("Your own images: npz:FILE, folder:DIR, tfds:NAME. Next: tfvamp datasets prepare NAME")


@command.command("info")
@name
@click.option(
    "--picture", metavar="FILE.png", help="Write the mean training image and a grid of training images."
)
@of_images("image_size", "grayscale", "colour", "background", "binarize")
@data_dir
@raw_dir
@click.pass_context
def info(ctx, name, picture, data_dir, raw_dir, **loading):
    """Show what a data set holds; it is prepared if needed.

    \b
    Example:
      tfvamp datasets info caltech101 --picture caltech101.png
    """
    _check_name(name, loading)
    from tfvamp import datasets, describe
    from tfvamp_cli import output

    dataset = datasets.load(name, data_dir, raw_dir, **_shown(ctx), **loading)
    output.table(dataset.spec.name, describe.rows(dataset))
    if picture:
        describe.write_picture(dataset, picture)
        click.echo(f"wrote {light.files.shown(picture)}")
    else:
        click.echo(f"Next: {_train(name, {**loading, 'data_dir': data_dir})}")


@command.command("prepare")
@name
@of_images("image_size", "grayscale", "colour", "background")
@data_dir
@raw_dir
@click.pass_context
def prepare(ctx, name, data_dir, raw_dir, **loading):
    """Download or read a data set's source files and prepare the data; nothing is done twice.

    \b
    Example:
      tfvamp datasets prepare omniglot --raw-dir ~/downloads
    """
    _check_name(name, loading)
    from tfvamp import datasets
    from tfvamp.catalog import VERIFIED

    dataset = datasets.load(name, data_dir, raw_dir, **_shown(ctx), **loading)
    sizes = "/".join(str(dataset.split(split).num_examples) for split in datasets.SPLITS)
    click.echo(
        f"{dataset.spec.name} is prepared: {sizes} images (verified: {VERIFIED[dataset.verified]}). "
        f"Next: {_train(name, {**loading, 'data_dir': data_dir})}"
    )


def _check_name(name: str, loading: dict) -> None:
    """Raises an error for a mistyped name, or for own images that are not there, before TensorFlow is imported."""
    if not name.startswith(light.config.OWN):
        light.config.check_dataset(name)
    options.check_images(name, loading["image_size"])


def _train(name: str, options: dict) -> str:
    """Returns the command that trains on these images."""
    words = ["tfvamp", "train", "--dataset", name]
    for option, value in options.items():
        if value and (option, value) != ("background", "white"):
            words += [f"--{option.replace('_', '-')}", *([] if value is True else [value])]
    return shlex.join(words)


def _shown(ctx) -> dict:
    """Returns the arguments by which `datasets.load` shows what it does."""
    shown = console(ctx)
    if shown is None:
        return {}
    say = functools.partial(shown.print, markup=False, highlight=False, soft_wrap=True)
    return {"say": say, "progress": shown.is_terminal}
