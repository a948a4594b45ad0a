"""tfvamp report."""

from __future__ import annotations

import click

from tfvamp_cli import light, options, output


@click.command("report")
@options.runs
@click.option(
    "--output",
    "path",
    metavar="FILE.html",
    help="Output file (HTML); required for several runs.  [default: RUN/report.html]",
)
@click.option("--overwrite", is_flag=True, help="Replace an existing file.")
@click.option(
    "--baseline", metavar="RUN", help="Run with which the others are compared.  [default: the first]"
)
@click.option(
    "--images",
    type=click.IntRange(0, 400),
    default=64,
    show_default=True,
    metavar="N",
    help="Maximum number of images in a picture; 0 leaves out all pictures and reads no weights.",
)
@options.seed
@click.option("--title", metavar="TEXT", help="Title of the report.  [default: a description of the run]")
@click.option(
    "--hide-paths", is_flag=True, help="Replace paths in command lines by their last part, for publication."
)
@options.of_data
@options.device
@click.pass_context
def command(
    ctx, runs, path, overwrite, baseline, images, seed, title, hide_paths, dataset, data_dir, raw_dir, device
):
    """Write an HTML report about one or several runs.

    The report is one file to read, print and send. It has the estimates with their errors beside
    the paper's numbers, training curves, samples, pseudo-inputs, reconstructions, the diagnosis,
    the settings, a model card and BibTeX; for several runs also a table with paired differences.
    It needs no other file and no network.

    \b
    Examples:
      tfvamp report runs/first
      tfvamp report runs/vamp runs/standard --output report.html
      tfvamp report runs/* --output report.html --overwrite --hide-paths
    """
    options.check_runs(*runs, *([] if baseline is None else [baseline]))
    from tfvamp import devices, reports

    with devices.on(device):
        written = reports.report(
            runs,
            path,
            overwrite,
            baseline,
            images,
            seed,
            title,
            hide_paths,
            dataset,
            data_dir,
            raw_dir,
            output.say(ctx),
        )
    size = light.files.size(written.stat().st_size)
    click.echo(f"wrote {light.files.shown(written)} ({size})")
