"""tfvamp encode."""

from __future__ import annotations

import pathlib

import click

from tfvamp_cli import options


@click.command("encode")
@options.run
@click.option(
    "--output",
    required=True,
    metavar="FILE.npz",
    help="Gets the arrays mean, log_variance [N, D] and label [N]; of a model with two layers, of z1 too.",
)
@options.split
@options.limit
@options.data_dir
@options.raw_dir
def command(run, output, split, limit, data_dir, raw_dir):
    """Write the latent means and log-variances of a data set.

    \b
    Example:
      tfvamp encode runs/first --output z.npz
    """
    path = pathlib.Path(output)
    if path.suffix != ".npz":
        raise click.UsageError(f"--output must end with .npz; got {output}")
    from tfvamp import runs

    arrays = runs.encode(run, split, limit, data_dir, raw_dir)
    runs.save_npz(path, **arrays)
    held = ", ".join(f"{name} {list(array.shape)}" for name, array in arrays.items())
    click.echo(f"wrote {held} to {path}")
