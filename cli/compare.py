"""tfvamp compare."""

from __future__ import annotations

import click

from tfvamp_cli import light, options, output, tables

NATS = (
    "bound", "bound_spread", "log_likelihood", "log_likelihood_spread", "standard_error", "monte_carlo_error", "difference",
    "difference_spread", "difference_error", "encoder", "encoder_spread", "encoder_difference",
    "encoder_difference_spread", "encoder_difference_error",
)  # fmt: skip
DIGITS = {**dict.fromkeys(NATS, 2), "monte_carlo_error": 3, "trained_epochs": 0, "best_epoch": 0, "images": 0}


@click.command("compare")
@options.runs
@click.option(
    "--baseline", metavar="RUN", help="Run with which the others are compared.  [default: the first]"
)
@options.split
@click.option(
    "--over", metavar="SETTING", help="Average over runs that differ only in this setting, such as seed."
)
@tables.option
@click.option("--output", "path", metavar="FILE", help="Write the table to a file.")
@click.pass_context
def command(ctx, runs, baseline, split, over, form, path):
    """List runs side by side, with paired differences.

    The table has the settings that differ and the results. Differences of the log-likelihood are
    taken image by image, so that their errors are smaller than those of the numbers themselves.
    Runs that were not evaluated on the same images by the same estimator have no difference.

    \b
    Examples:
      tfvamp compare runs/vamp runs/standard
      tfvamp compare runs/caltech/* --over seed --format markdown
      tfvamp compare runs/* --baseline runs/vamp --format latex --output table.tex
    """
    light.errors.check_choice("format", form, tables.FORMATS)
    light.errors.check_choice("split", split, light.config.SPLITS)
    options.check_runs(*runs, *([] if baseline is None else [baseline]))
    from tfvamp.runs import compare

    table = compare(runs, baseline, split, over, output.say(ctx))
    columns = {name: list(table[name]) for name in table}
    text = tables.rendered(columns, form, DIGITS)
    if path is None:
        click.echo(text, nl=False)
        return
    light.files.replace_file(light.files.expanded(path), text.encode())
    click.echo(f"wrote {light.files.shown(path)}")
