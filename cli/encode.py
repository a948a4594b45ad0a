"""tfvamp encode."""

from __future__ import annotations

import click

from tfvamp_cli import light, options, output


@click.command("encode")
@options.run
@click.option(
    "--output",
    "path",
    required=True,
    metavar="FILE.npz",
    help="Output file with the arrays mean, log_variance [N, D] and label [N]; with several layers, also those of the lower ones: mean_z1 and so on.",
)
@options.split
@options.limit
@options.of_data
@options.device
@click.pass_context
def command(ctx, run, path, split, limit, dataset, data_dir, raw_dir, device):
    """Write the latent means and log-variances of a data set.

    \b
    Example:
      tfvamp encode runs/first --output z.npz
    """
    if not path.endswith(".npz"):
        raise click.UsageError(f"--output must end with .npz; got {path}")
    light.errors.check_choice("split", split, light.config.SPLITS)
    options.check_runs(run)
    from tfvamp import arrays, devices, runs
    from tfvamp.files import shown

    with devices.on(device):
        encoded = runs.encode(run, split, limit, dataset, data_dir, raw_dir, output.say(ctx))
    arrays.write_npz(path, **encoded)
    held = ", ".join(f"{name} {list(array.shape)}" for name, array in encoded.items())
    click.echo(f"wrote {held} to {shown(path)}")
