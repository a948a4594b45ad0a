"""tfvamp train."""

from __future__ import annotations

import datetime
import os
import re

import click
from click.core import ParameterSource

from tfvamp_cli import chatter, choices

RESUMABLE = {"epochs", "data_dir", "raw_dir"}  # options that --resume takes


@click.command("train")
@click.option(
    "--dataset",
    default=choices.DATASET,
    show_default=True,
    metavar="NAME",
    help=f"Data set: {choices.listed(choices.DATASETS)} (caltech101 means the 28x28 silhouettes); or your own "
    "images: npz:FILE, folder:DIR, tfds:NAME[/CONFIG][:IMAGE_KEY].",
)
@click.option(
    "--image-size", metavar="HxW", help="Size that your own images are brought to; folder: needs it."
)
@click.option("--grayscale", is_flag=True, help="Make your own images grey.")
@click.option(
    "--binarize",
    metavar="HOW",
    help=f"Of your own images: {choices.listed(choices.BINARIZATIONS)}.  [default: none]",
)
@click.option(
    "--model",
    default=choices.MODEL,
    show_default=True,
    metavar="NAME",
    help=f"Model: {choices.listed(choices.MODELS)}.",
)
@click.option(
    "--prior",
    default=choices.PRIOR,
    show_default=True,
    metavar="NAME",
    help=f"Prior: {choices.listed(choices.PRIORS)}.",
)
@click.option(
    "--components", type=int, metavar="K", help="Components of a mixture prior.  [default: the data set's]"
)
@click.option("--epochs", type=int, metavar="N", help=f"Most epochs.  [default: {choices.EPOCHS}]")
@click.option(
    "--batch-size",
    type=int,
    metavar="B",
    default=choices.BATCH_SIZE,
    show_default=True,
    help="Images a step.",
)
@click.option(
    "--learning-rate",
    type=float,
    metavar="R",
    help="Of Adam on normalised gradients.  [default: the data set's]",
)
@click.option(
    "--warmup",
    type=int,
    metavar="N",
    default=choices.WARMUP,
    show_default=True,
    help="Epochs until the KL counts in full.",
)
@click.option(
    "--patience",
    type=int,
    metavar="N",
    default=choices.PATIENCE,
    show_default=True,
    help="Epochs without a better validation ELBO that are borne.",
)
@click.option(
    "--seed",
    type=int,
    metavar="N",
    default=choices.SEED,
    show_default=True,
    help="Of weights, noise, data order and binarisation.",
)
@click.option(
    "--likelihood",
    metavar="NAME",
    help=f"Likelihood: {choices.listed(choices.LIKELIHOODS)}, or paper: the form of the paper's code "
    "that fits the data.  [default: the data set's]",
)
@click.option(
    "--objective",
    metavar="NAME",
    default=choices.OBJECTIVE,
    show_default=True,
    help=f"Bound that is trained: {choices.listed(choices.OBJECTIVES)}.",
)
@click.option(
    "--importance-samples",
    type=int,
    metavar="S",
    help=f"Samples inside the logarithm, for iwae.  [default: {choices.IMPORTANCE_SAMPLES}]",
)
@click.option("--num-samples", type=int, metavar="L", help="Samples outside the logarithm.  [default: 1]")
@click.option(
    "--dreg", is_flag=True, help="The doubly reparameterised gradient, for iwae; not for pixelhvae."
)
@click.option(
    "--pseudo-input-init",
    metavar="NAME",
    default=choices.PSEUDO_INPUT_INIT,
    show_default=True,
    help="Initial pseudo-inputs: normal noise, or training images.",
)
@click.option(
    "--preset",
    metavar="NAME",
    help=f"Settings to start from: {choices.listed(choices.PRESETS)} (the published code's).",
)
@click.option(
    "--jit/--no-jit", default=None, help="Compile with XLA, or do not.  [default: the faster for the model]"
)
@click.option("--limit", type=int, metavar="N", help="At most N images of each split, for a quick look.")
@click.option("--run-dir", metavar="DIR", help="The run folder.  [default: runs/DATASET-MODEL-PRIOR-TIME]")
@click.option("--data-dir", metavar="DIR", help="Prepared data.  [default: TFDS's]")
@click.option(
    "--raw-dir",
    metavar="DIR",
    help="Source files fetched by hand, used instead of a download.  [env: TFVAMP_RAW_DIR]",
)
@click.option("--overwrite", is_flag=True, help="Replace a run folder that exists.")
@click.option(
    "--resume",
    metavar="RUN",
    help="Go on with a stopped run; with it go only --epochs, --data-dir and --raw-dir.",
)
@click.pass_context
def command(ctx, run_dir, overwrite, resume, preset, **settings):
    """Train a model and its prior into a run folder.

    Training ends when the validation ELBO has not risen for --patience epochs; the best
    epoch's weights are kept. Ctrl-C stops after saving; --resume goes on as if nothing had
    happened.

    \b
    Examples:
      tfvamp train --dataset caltech101 --prior vamp
      tfvamp train --epochs 60 --warmup 20 --components 100 --run-dir runs/quick
      tfvamp train --resume runs/quick --epochs 120
    """
    given = {name for name in ctx.params if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE}
    if resume and (extra := given - RESUMABLE - {"resume"}):
        raise click.UsageError(
            f"--resume takes the run's own settings; leave out --{sorted(extra)[0].replace('_', '-')}"
        )
    from tfvamp import training
    from tfvamp.config import TrainConfig
    from tfvamp_cli.output import console

    # A preset overrides this command's defaults, what is typed overrides the preset.
    chosen = {name: value for name, value in settings.items() if name in given}
    try:
        if resume:
            run_dir = resume
            outcome = training.resume(resume, **chosen, console=console(ctx))
        else:
            config = TrainConfig.from_preset(preset, **chosen)
            if run_dir is None:
                time = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
                name = re.sub(r"[^\w.-]+", "-", config.dataset.rstrip("/").rsplit("/", 1)[-1])
                run_dir = os.path.join("runs", f"{name}-{config.model}-{config.prior}-{time}")
            outcome = training.train(config, run_dir, overwrite, console(ctx))
    finally:
        if run_dir is not None and os.path.isfile(os.path.join(run_dir, "config.json")):
            chatter.keep(training.RunFolder(run_dir).log_file)
    if outcome.interrupted:
        click.echo(
            f"stopped: {outcome.epochs} whole epochs are saved. Go on with: tfvamp train --resume {run_dir}",
            err=True,
        )
        ctx.exit(1)
    click.echo(
        f"{outcome.epochs} epochs, best {outcome.best_epoch} (validation ELBO {outcome.best_elbo:.2f}), "
        f"in {run_dir}. Next: tfvamp evaluate {run_dir}"
    )
