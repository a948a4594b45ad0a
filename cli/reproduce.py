"""tfvamp reproduce."""

from __future__ import annotations

import time

import click

from tfvamp_cli import light, options, output, tables

NAMES = light.paper.NAMES
OF_TABLES = {"text": "text", "md": "markdown", "csv": "csv", "tex": "latex", "json": "json"}
LARGEST_PAGE = 2**24  # bytes
MOST_COMPONENTS = 10**6
# Columns that a section of a page leaves out if all rows agree.
SAID_ONCE = ("data set", "model", "unit", "seeds", "state")
MINUTES_OF_MEASURING = 3.0  # of steps, in one call


def _listed(kind: str, known) -> str:
    return (
        f"Take these {kind} alone, separated by commas: {light.config.listed(known)}.  [default: the paper's]"
    )


@click.command("reproduce")
@click.argument("name", metavar="NAME")
@click.option("--datasets", metavar="NAMES", help=_listed("data sets", light.paper.DATASETS))
@click.option("--models", metavar="NAMES", help=_listed("models", light.paper.MODELS))
@click.option("--priors", metavar="NAMES", help=_listed("priors", light.config.PRIORS))
@click.option(
    "--components",
    metavar="K,...",
    help="Take these numbers of components in figure2 and figure3, separated by commas.  [default: the paper's]",
)
@click.option(
    "--seeds",
    type=click.IntRange(1, 1000),
    metavar="N",
    default=1,
    show_default=True,
    help="Number of runs per cell, with the seeds 0 to N - 1.",
)
@click.option(
    "--budget-minutes",
    "minutes",
    type=click.FloatRange(0.0),
    metavar="M",
    help="Stop after this time; the run in training is saved and continues the next time.  [default: no limit]",
)
@click.option(
    "--no-train", is_flag=True, help="Train and evaluate nothing; only show what the folder of the runs has."
)
@options.jobs
@click.option(
    "--samples",
    type=click.IntRange(1),
    metavar="S",
    help=f"Number of importance samples per test image.  [default: {light.paper.SAMPLES}; for figure2 and figure3 "
    f"{light.paper.ELBO_SAMPLES}]",
)
@click.option(
    "--run-root",
    metavar="DIR",
    default="runs/paper",
    show_default=True,
    help="Folder of the runs, which all tables and figures share.",
)
@click.option(
    "--archive",
    metavar="DIR",
    help="Keep the results of finished runs in this folder, one JSON file per run, and take them from there where "
    "there is no run folder.",
)
@click.option(
    "--config",
    metavar="FILE.toml",
    help="Settings of all runs that differ from the paper's, as for tfvamp train --config; give them a --run-root of "
    "their own.",
)
@click.option("--data-dir", metavar="DIR", help="Folder of prepared data.  [default: TFDS's]")
@click.option(
    "--raw-dir",
    metavar="DIR",
    help="Folder with source files that you fetched, used instead of a download.  [env: TFVAMP_RAW_DIR]",
)
@options.device
@click.option(
    "--format",
    "form",
    metavar="NAME",
    help=f"Format of a table: {light.config.listed(OF_TABLES)}; of a figure: {light.config.listed(light.config.FORMATS)}.  "
    "[default: the ending of --output, else text or png]",
)
@click.option(
    "--output",
    "path",
    metavar="FILE",
    help="Write to a file.  [default: a table is printed, a figure goes to NAME.png in --run-root]",
)
@click.option(
    "--section",
    metavar="TITLE",
    help="With --output: replace what a Markdown page has between <!-- TITLE --> and <!-- end of TITLE -->; "
    "without the columns data set, model, unit, seeds and state where all rows agree.",
)
@click.option(
    "--details", is_flag=True, help="Add ELBO, KL, active units, paired differences and training to a table."
)
@click.option("--no-hours", is_flag=True, help="Do not measure how long the missing runs would take.")
@click.option(
    "--component",
    type=click.IntRange(0),
    metavar="K",
    default=0,
    show_default=True,
    help="Pseudo-input of figure4, counted from 0.",
)
@options.dpi
@click.pass_context
def command(ctx, name, form, path, section, details, no_hours, component, dpi, **chosen):
    """Run what a table or figure of the paper needs, and show it beside the published numbers.

    NAME is table1 to table5, figure1 to figure7, or gradients. Missing runs are trained and
    evaluated, stopped runs are continued, and finished ones are left alone: the same command
    continues after Ctrl-C, SIGTERM or the end of the budget. With --no-train, nothing is
    trained or evaluated. Unfinished cells show how far they are, with the commands that finish
    them and about how many hours the training takes.

    The log-likelihoods that the paper prints use the encoder's q, and so do the verdicts. The
    estimate from refined proposals, which is closer, has its own column.

    All cells of table1 take weeks on a CPU: choose cells, or set a budget.

    \b
    Examples:
      tfvamp reproduce table1 --no-train
      tfvamp reproduce table1 --datasets caltech101 --models vae --budget-minutes 60
      tfvamp reproduce table1 --datasets caltech101 --no-train --output table1.tex
      tfvamp reproduce figure2 --seeds 3 --budget-minutes 600
      tfvamp reproduce figure3 --datasets caltech101 --components 1,10,100,500
      tfvamp reproduce figure7 --datasets caltech101 --no-train --output figure7.pdf
    """
    light.errors.check_choice("table or figure", name, NAMES)
    kinds = {kind: _names(chosen[kind]) for kind in ("datasets", "models", "priors")}
    counts = _counts(chosen["components"])
    light.paper.points(name, **kinds, components=counts)
    is_table = name in light.paper.TABLE_NAMES
    form = _form(form, path, is_table)
    if section is not None and (path is None or form != "md"):
        raise click.UsageError("--section goes with --output PAGE.md of a table")
    settings = {} if chosen["config"] is None else light.config.from_toml(chosen["config"])
    places = ("data_dir", "raw_dir", "device")
    settings |= {key: chosen[key] for key in places if chosen[key] is not None}
    light.config.TrainConfig(**settings)
    from tfvamp import paper, reproducing

    say, minutes = output.say(ctx), chosen["minutes"]
    began = time.monotonic()

    def look():
        return reproducing.cells_of(
            paper.points(name, **kinds, components=counts),
            chosen["run_root"],
            chosen["seeds"],
            paper.evaluation(name, chosen["samples"]),
            settings,
            chosen["archive"],
        )

    cells, done = look(), None
    if not chosen["no_train"] and cells:
        with output.sweeping(ctx) as (say_of_runs, show):
            done = reproducing.carry_out(
                cells, chosen["run_root"], chosen["jobs"], minutes, say_of_runs, show
            )
        cells = look()
    if chosen["archive"] is not None:
        for written in reproducing.keep(cells, chosen["archive"]):
            say(f"wrote {light.files.shown(written)}")
    hours = {}
    if not no_hours and (done is None or done.signal is None):
        deadline = time.monotonic() + 60.0 * MINUTES_OF_MEASURING
        if minutes is not None:
            deadline = min(deadline, began + 60.0 * minutes)
        hours = reproducing.hours_of(cells, chosen["run_root"], deadline, say)
    if is_table:
        columns, digits = reproducing.columns(name, cells, details, hours, chosen["config"])
        notes = light.paper.notes(name, [cell.point for cell in cells])
        lines = [line for cell in cells for line in reproducing.commands(cell, chosen["config"])]
        _write_table(columns, digits, form, notes, lines, path, section)
    else:
        from tfvamp import devices, plots

        look_of_figure = plots.Look(form, dpi)
        path = path or f"{chosen['run_root']}/{name}.{form}"
        where = (chosen["data_dir"], chosen["raw_dir"])
        with devices.on(chosen["device"]):
            drawn = reproducing.draw(name, cells, look_of_figure, component, *where, say)
        light.files.replace_file(light.files.expanded(path), drawn)
        _say_unfinished(cells, hours, chosen["config"])
        click.echo(f"wrote {light.files.shown(path)}")
    if done is not None and done.signal is not None:
        click.echo("stopped: the same command goes on", err=True)
        ctx.exit(128 + done.signal)
    if done is not None and done.failed:
        failed = "; ".join(f"{run}: {reason}" for run, reason in done.failed.items())
        click.echo(
            f"tfvamp: {light.files.counted(len(done.failed), 'run')} failed: {light.files.printable(failed)}",
            err=True,
        )
        ctx.exit(1)


def _names(text: str | None) -> list[str] | None:
    """Returns the names of an option that takes several."""
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


def _counts(text: str | None) -> list[int] | None:
    """Returns the numbers of --components, in order, each once."""
    if text is None:
        return None
    words = _names(text) or [text]
    if not all(word.isdecimal() and len(word) < 10 and 0 < int(word) <= MOST_COMPONENTS for word in words):
        raise click.UsageError(
            f"--components must be whole numbers from 1 to {MOST_COMPONENTS}, separated by commas; got {text!r}"
        )
    return sorted({int(word) for word in words})


def _form(form: str | None, path: str | None, is_table: bool) -> str:
    """Returns the format of the output: as given, or by the ending of the file."""
    known = tuple(OF_TABLES) if is_table else light.config.FORMATS
    if form is not None:
        light.errors.check_choice("format", form, known)
        return form
    if path is None:
        return known[0]
    ending = path.rpartition(".")[2]
    if ending == "txt" and is_table:
        return "text"
    if ending not in known:
        endings = light.config.listed(f".{name}" for name in known if name != "text")
        raise click.UsageError(f"--output must end with one of {endings}, or choose --format; got {path}")
    return ending


def _say_unfinished(cells, hours, config: str | None) -> None:
    """Prints how far the unfinished cells of a figure are, and the commands that finish them."""
    from tfvamp import reproducing

    for cell in cells:
        if state := reproducing.state_of(cell, hours):
            click.echo(light.files.printable(f"{_called(cell)}: {state}"))
            for line in reproducing.commands(cell, config):
                click.echo(f"  {light.files.printable(line)}")


def _called(cell) -> str:
    """Returns a cell of a figure as text."""
    point, titles = cell.point, light.paper.TITLES
    count = "" if point.components is None else f", K = {point.components}"
    objective = "" if point.objective == "elbo" else f", {point.objective.upper()}"
    return f"{titles[point.dataset]}, {point.title}{count}{objective}"


def _write_table(columns, digits, form: str, notes, commands, path: str | None, section: str | None) -> None:
    """Prints a table or writes it to a file, with notes and the commands of what is not finished below it."""
    if form not in ("csv", "json"):
        columns.pop("command", None)
    if section is not None:
        columns = _without_repetition(columns)
    text = tables.rendered(columns, OF_TABLES[form], digits)
    if form == "md":
        text += "".join(f"\n{line}\n" for line in notes)
        if commands:
            text += "\nNot finished:\n\n" + "".join(f"    {line}\n" for line in commands)
    elif form == "text":
        text += "".join(f"{line}\n" for line in [*notes, *(f"not finished: {one}" for one in commands)])
    elif form == "tex":
        text += "".join(f"% {light.files.printable(line)}\n" for line in [*notes, *commands])
    if path is None:
        click.echo(text, nl=False)
        return
    place = light.files.expanded(path)
    if section is not None:
        text = _with_section(place, section, text)
    light.files.replace_file(place, text.encode())
    click.echo(f"wrote {light.files.shown(path)}")


def _without_repetition(columns: dict[str, list]) -> dict[str, list]:
    """Returns the columns of a table without those of one value, which a page says in its text."""
    return {name: cells for name, cells in columns.items() if name not in SAID_ONCE or len(set(cells)) > 1}


def _with_section(page, title: str, text: str) -> str:
    """Returns a Markdown page with the text between the two comments of a section replaced."""
    old = light.files.read_bytes(page, LARGEST_PAGE).decode()
    start, end = f"<!-- {title} -->\n", f"<!-- end of {title} -->\n"
    before, found, rest = old.partition(start)
    _, ended, after = rest.partition(end)
    if not found or not ended:
        raise click.UsageError(f"{light.files.shown(page)} has no lines {start.strip()} and {end.strip()}")
    return before + start + text + end + after
