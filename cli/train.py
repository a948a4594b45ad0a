"""tfvamp train."""

from __future__ import annotations

import contextlib
import dataclasses
import json

import click

from tfvamp_cli import chatter, light, options, output

RESUMABLE = {
    "resume",
    "restart",
    "json_progress",
    "epochs",
    "dataset",
    "data_dir",
    "raw_dir",
    "device",
    "on_nan",
    "strategy",
}  # options that go with --resume
OF_A_RUN = ("run_dir", "preset")  # keys that a --config file may have besides settings


@click.command("train")
@options.of_settings()
@click.option(
    "--preset",
    metavar="NAME",
    help="Settings to start from: paper (the published code's), or best (of docs/study.md, for the models vae and hvae).",
)
@click.option(
    "--config",
    metavar="FILE.toml",
    help="File with settings, as written by --print-config; options on the command line override it.",
)
@click.option("--print-config", is_flag=True, help="Print the settings as TOML and stop.")
@click.option(
    "--dry-run",
    is_flag=True,
    help="Show parameters, memory and the time per epoch, measured over a few steps, and stop.",
)
@click.option("--run-dir", metavar="DIR", help="Run folder.  [default: runs/DATASET-MODEL-PRIOR-TIME]")
@click.option(
    "--overwrite", is_flag=True, help="Replace an existing run folder, after the new run's first epoch."
)
@click.option(
    "--resume",
    metavar="RUN",
    help="Continue a stopped run; can be combined only with --epochs, --dataset, --data-dir, --raw-dir, --device, --strategy, --on-nan and --restart.",
)
@click.option(
    "--restart", is_flag=True, help="With --resume: start again from epoch 1 if no checkpoint can be read."
)
@click.option(
    "--json-progress", is_flag=True, help="Write progress to standard output as one JSON object per line."
)
@click.pass_context
def command(
    ctx, preset, config, print_config, dry_run, run_dir, overwrite, resume, restart, json_progress, **settings
):
    """Train a model and its prior into a run folder.

    Training ends when the validation bound has not risen for --patience epochs; the best
    epoch's weights are kept. Ctrl-C stops after saving; --resume continues as if nothing had
    happened.

    \b
    Examples:
      tfvamp train --dataset caltech101 --prior vamp
      tfvamp train --epochs 60 --warmup 20 --components 100 --run-dir runs/quick
      tfvamp train --resume runs/quick --epochs 120
      tfvamp train --config study.toml --prior mog --dry-run
    """
    typed = options.given(ctx, ctx.params)
    chosen = {name: value for name, value in settings.items() if name in typed}
    if resume is not None:
        if not resume:
            raise click.UsageError("--resume must name a run folder")
        if extra := set(typed) - RESUMABLE:
            name = sorted(extra)[0].replace("_", "-")
            raise click.UsageError(f"--resume takes the run's own settings; leave out --{name}")
        options.check_runs(resume)
        _finish(
            ctx,
            json_progress,
            lambda training, **how: training.resume(resume, **chosen, restart=restart, **how),
        )
        return
    if restart:
        raise click.UsageError("--restart goes with --resume RUN")
    if config is not None:
        stored = light.config.from_toml(config, OF_A_RUN)
        of_a_run = {name: stored.pop(name) for name in OF_A_RUN if name in stored}
        if not all(isinstance(value, str) for value in of_a_run.values()):
            raise click.UsageError(f"{config}: run_dir and preset must be texts")
        run_dir = of_a_run.get("run_dir") if run_dir is None else run_dir
        if preset is None:
            preset = of_a_run.get("preset")
        else:  # options on the command line override the file
            light.errors.check_choice("preset", preset, light.config.PRESETS)
            stored |= light.config.PRESETS[preset]
        chosen = {**stored, **chosen}
    # A preset overrides the defaults, and what was chosen overrides the preset. Wrong settings end here, at once.
    wanted = light.config.TrainConfig.from_preset(preset, **chosen)
    if print_config:
        if run_dir is not None:
            click.echo(light.config.toml_line("run_dir", run_dir))
        spec = light.config.CATALOG.get(wanted.dataset)
        click.echo(wanted.to_toml(None if spec is None else wanted.resolve(spec)), nl=False)
        return
    options.check_images(wanted.dataset, wanted.image_size)
    given = wanted.to_dict()
    if dry_run:
        _dry_run(ctx, given, run_dir, overwrite)
        return
    _finish(
        ctx, json_progress, lambda training, **how: training.train(_config(given), run_dir, overwrite, **how)
    )


def _config(settings: dict):
    from tfvamp.config import TrainConfig

    return TrainConfig(**settings)


def _dry_run(ctx, settings: dict, run_dir: str | None, overwrite: bool) -> None:
    from tfvamp import training
    from tfvamp.files import shown
    from tfvamp.runs import creating
    from tfvamp.training.dry_run import described

    replaces = run_dir is not None and creating.check_free(run_dir, overwrite)
    measured = training.dry_run(_config(settings), output.console(ctx))
    resolved = dataclasses.asdict(measured["config"])
    rows = {name.replace("_", "-"): str(value) for name, value in resolved.items() if value is not None}
    if run_dir is not None:
        rows["run-dir"] = shown(run_dir) + (", which would be replaced" if replaces else "")
    output.table("settings", rows)
    output.table("this machine", described(measured))


def _finish(ctx, json_progress: bool, work) -> None:
    """Trains, keeps TensorFlow's messages in the run folder, and says what to do next."""
    from tfvamp import training
    from tfvamp.errors import RunError
    from tfvamp.files import shown

    started: list = []  # the folder of the run
    try:
        events = click.echo if json_progress else None
        outcome = work(training, console=output.console(ctx), events=events, on_start=started.append)
    finally:
        if started:
            with contextlib.suppress(RunError):  # a link that leads out of the folder
                chatter.keep(started[-1].log_file)
    run = shown(outcome.run_dir)
    if json_progress:
        numbers = {name: getattr(outcome, name) for name in ("epochs", "steps", "best_epoch", "signal")}
        bound = outcome.best_bound if outcome.best_epoch else None
        click.echo(
            json.dumps({"event": "end", **numbers, "best_bound": bound, "run_dir": str(outcome.run_dir)})
        )
        if outcome.interrupted:
            ctx.exit(128 + outcome.signal)
        return
    if outcome.interrupted:
        if outcome.old_run_kept:
            text = "no epoch was finished: the run that was to be replaced is kept"
        elif outcome.epochs or outcome.steps:
            saved = training.spoken(outcome.epochs, outcome.steps)
            text = f"{saved} saved. Go on with: tfvamp train --resume {run}"
        else:
            text = f"nothing was saved yet. Go on with: tfvamp train --resume {run}"
        click.echo(f"stopped: {text}", err=True)
        ctx.exit(128 + outcome.signal)
    click.echo(
        f"{light.files.counted(outcome.epochs, 'epoch')}, best {outcome.best_epoch} (validation bound {outcome.best_bound:.2f}), "
        f"in {run}. Next: tfvamp evaluate {run}"
    )
