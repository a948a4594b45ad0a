"""Options that several commands share."""

from __future__ import annotations

import click

from tfvamp_cli import choices

run = click.argument("run", metavar="RUN")
seed = click.option(
    "--seed",
    type=click.IntRange(0, 2**31 - 1),
    default=0,
    show_default=True,
    help="The same seed gives the same result.",
)
split = click.option(
    "--split",
    metavar="NAME",
    default="test",
    show_default=True,
    help=f"Split: {choices.listed(choices.SPLITS)}.",
)
limit = click.option("--limit", type=int, metavar="N", help="At most N images, for a quick look.")
data_dir = click.option("--data-dir", metavar="DIR", help="Prepared data.  [default: the run's]")
raw_dir = click.option("--raw-dir", metavar="DIR", help="Source files fetched by hand.  [default: the run's]")
