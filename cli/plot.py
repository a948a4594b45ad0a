"""tfvamp plot."""

from __future__ import annotations

import click

from tfvamp_cli import light, options, output


@click.command("plot")
@options.run
@options.seed
@click.option(
    "--format",
    "file_format",
    metavar="NAME",
    default=light.config.FORMATS[0],
    show_default=True,
    help=f"File format: {light.config.listed(light.config.FORMATS)}.",
)
@options.dpi
@options.columns
@options.no_title
@options.of_data
@options.device
@click.pass_context
def command(ctx, run, seed, file_format, dpi, columns, no_title, dataset, data_dir, raw_dir, device):
    """Draw curves, samples, reconstructions, pseudo-inputs, latents, and a histogram.

    The pictures go into the run's folder figures/. The histogram needs tfvamp evaluate first.

    \b
    Example:
      tfvamp plot runs/first
      tfvamp plot runs/first --format pdf --no-title
    """
    options.check_runs(run)
    from tfvamp import devices, plots, runs
    from tfvamp.files import shown

    look = plots.Look(file_format, dpi, columns, not no_title)
    with devices.on(device):
        opened = runs.Run(run)
        paths = runs.plot(opened, seed, dataset, data_dir, raw_dir, output.say(ctx), look)
    for path in paths:
        click.echo(shown(path))
    if not any("/log_likelihood." in path for path in paths):
        state = "yet" if opened.evaluation() is None else "of these weights yet"
        click.echo(f"no histogram of the log-likelihood {state}. Next: tfvamp evaluate {opened}")
