"""tfvamp plot."""

from __future__ import annotations

import click

from tfvamp_cli import options


@click.command("plot")
@options.run
@options.seed
@options.data_dir
@options.raw_dir
def command(run, seed, data_dir, raw_dir):
    """Draw curves, samples, reconstructions, pseudo-inputs, the likelihood's histogram.

    The pictures go into the run's folder figures/. The histogram needs tfvamp evaluate first.

    \b
    Example:
      tfvamp plot runs/first
    """
    from tfvamp import runs
    from tfvamp.training import RunFolder

    for path in runs.plot(run, seed, data_dir, raw_dir):
        click.echo(path)
    if not RunFolder(run).log_likelihood_file().is_file():
        click.echo(f"no histogram of the log-likelihood yet. Next: tfvamp evaluate {run}")
