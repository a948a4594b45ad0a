"""tfvamp sweep."""

from __future__ import annotations

import click

from tfvamp_cli import light, options, output, tables
from tfvamp_cli.compare import DIGITS


@click.command("sweep")
@click.argument("spec", metavar="SPEC.toml")
@click.option("--run-dir", metavar="DIR", help="Folder of the runs.  [default: the file's, else runs/SPEC]")
@options.jobs
@click.option("--list", "list_only", is_flag=True, help="Show the runs and how far each is, and stop.")
@click.option(
    "--search",
    is_flag=True,
    help="Let Optuna choose the values, and give up runs below the median (needs the extra tune).",
)
@click.option(
    "--trials",
    type=click.IntRange(1, 10_000),
    metavar="N",
    default=20,
    show_default=True,
    help="Number of runs of a search.",
)
@click.option("--ray", is_flag=True, help="Hand the runs to Ray (needs the extra ray).")
@click.option("--ray-address", metavar="ADDRESS", help="Ray cluster to use.  [default: one on this machine]")
@tables.option
@click.pass_context
def command(ctx, spec, run_dir, jobs, list_only, search, trials, ray, ray_address, form):
    """Train and evaluate many runs from a file of settings.

    [settings] has the settings of all runs, [vary] a list of values for each setting that
    varies, [cases.NAME] a set of settings to compare, and [evaluate] the options of an
    evaluation. Each run is an ordinary run folder, named by its values. The same command
    continues where it was stopped: finished runs are left alone, stopped runs are resumed.

    \b
    Example of a file:
      [settings]
      dataset = "caltech101"
      [vary]
      prior = ["standard", "vamp"]
      seed = [0, 1, 2]
      [evaluate]
      samples = 500

    \b
    Examples:
      tfvamp sweep priors.toml --jobs 2
      tfvamp sweep priors.toml --list
      tfvamp sweep rates.toml --search --trials 30
    """
    light.errors.check_choice("format", form, tables.FORMATS)
    # Raises its error before TensorFlow is imported.
    light.files.read_bytes(light.files.expanded(spec), light.config.LARGEST_TOML)
    typed = ctx.get_parameter_source("trials") is click.core.ParameterSource.COMMANDLINE
    if typed and not search:
        raise click.UsageError("--trials goes with --search")
    if ray_address is not None and not ray:
        raise click.UsageError("--ray-address goes with --ray")
    if search and list_only:
        raise click.UsageError("--list shows the runs of a file; those of a --search are not known before")
    from tfvamp import sweeps
    from tfvamp.sweeps import workers
    from tfvamp.sweeps.search import Search

    read = sweeps.read(spec, run_dir)
    if list_only:
        runs = sweeps.planned(read)
        columns = {"run": [run.name for run in runs], "state": [run.state() for run in runs]}
        click.echo(tables.rendered(columns, "text", {}), nl=False)
        return
    chosen = Search(read, trials) if search else None
    pool = workers.by_name("ray" if ray else "processes", jobs, ray_address)
    with output.sweeping(ctx) as (say, show):
        done = sweeps.sweep(read, pool, jobs, chosen, say, show)
    _show(ctx, read, done, form)
    if done.signal is not None:
        click.echo("stopped: the same command goes on", err=True)
        ctx.exit(128 + done.signal)
    if done.failed:
        click.echo(
            f"tfvamp: {len(done.failed)} of {len(done.runs)} runs failed: their logs are in {read.run_dir}/logs",
            err=True,
        )
        ctx.exit(1)


def _show(ctx, spec, done, form: str) -> None:
    """Prints the table of the runs that have an epoch, and the best values of a search."""
    from tfvamp.runs import compare

    paths = [run.path for run in done.runs if run.progress().epochs]
    if paths:
        over = "seed" if "seed" in spec.vary else None
        say = output.say(ctx) if spec.evaluate is not None else (lambda text: None)
        table = compare(paths, over=over, say=say)
        click.echo(tables.rendered({name: list(table[name]) for name in table}, form, DIGITS), nl=False)
    if done.best is not None:
        values = ", ".join(f"{name} = {value!r}" for name, value in done.best.items())
        click.echo(f"best: {values}")
