"""tfvamp rate-distortion."""

from __future__ import annotations

import click

from tfvamp_cli import options, tables


@click.command("rate-distortion")
@options.runs
def command(runs):
    """List the rate and distortion of evaluated runs.

    The rate is the KL: what the latents tell about an image. The distortion is -log p(x | z):
    what they leave out (Alemi and others 2018). Both are in nats per image, under the encoder's
    q. Their sum is minus the ELBO. Runs with different --beta trade one for the other.

    \b
    Example:
      tfvamp train --beta 0.5 --run-dir runs/beta-0.5
      tfvamp evaluate runs/beta-0.5
      tfvamp rate-distortion runs/beta-*
    """
    options.check_runs(*runs)
    from tfvamp.runs import rate_distortion

    table = rate_distortion(runs)
    names = ("run", "model", "prior", "beta", "rate", "distortion", "elbo", "num_examples")
    columns = {name.replace("num_examples", "images"): list(table[name]) for name in names}
    click.echo(tables.rendered(columns, "text", {"rate": 2, "distortion": 2, "elbo": 2}), nl=False)
