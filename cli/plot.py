"""tfvamp plot."""

from __future__ import annotations

import click

from tfvamp_cli import options, output


@click.command("plot")
@options.run
@options.seed
@options.of_data
@options.device
@click.pass_context
def command(ctx, run, seed, dataset, data_dir, raw_dir, device):
    """Draw curves, samples, reconstructions, pseudo-inputs, the likelihood's histogram.

    The pictures go into the run's folder figures/. The histogram needs tfvamp evaluate first.

    \b
    Example:
      tfvamp plot runs/first
    """
    from tfvamp import devices, runs
    from tfvamp.files import shown

    with devices.on(device):
        opened = runs.Run(run)
        paths = runs.plot(opened, seed, dataset, data_dir, raw_dir, output.say(ctx))
    for path in paths:
        click.echo(shown(path))
    if not any(path.endswith("log_likelihood.png") for path in paths):
        state = "yet" if opened.evaluation() is None else "of these weights yet"
        click.echo(f"no histogram of the log-likelihood {state}. Next: tfvamp evaluate {opened}")
