"""tfvamp info."""

from __future__ import annotations

import click

from tfvamp_cli import light, options, output

# Settings that are shown if they are not the default.
LESS_OFTEN = (
    "optimizer", "optimizer_arguments", "schedule", "weight_decay", "average", "input_dropout", "stop_by",
    "validation_samples", "elbo_epochs", "limit",
)  # fmt: skip


@click.command("info")
@options.run
@click.pass_context
def command(ctx, run):
    """Show what a run is and how far it got.

    \b
    Example:
      tfvamp info runs/first
    """
    options.check_runs(run)
    from tfvamp import runs
    from tfvamp.catalog import VERIFIED
    from tfvamp.config import TrainConfig
    from tfvamp.runs.history import best_of

    opened = runs.Run(run)
    document, config = opened.document, opened.config
    history = opened.rows(output.say(ctx))
    mixture = f", K = {config.components}" if config.mixture else ""
    objective = (
        config.objective if config.num_samples == 1 else f"{config.objective}, L = {config.num_samples}"
    )
    if config.objective != "elbo":
        gradient = ", doubly reparameterised gradient" if config.dreg else ""
        objective += f", S = {config.importance_samples}{gradient}"
    weight = "" if config.beta == 1.0 else f", beta {config.beta:g}"
    rows = {
        "data": config.dataset,
        "data verified": VERIFIED[document.verified],
        "model": f"{config.model}, prior {config.prior}{mixture}, likelihood {config.likelihood}",
        "objective": objective,
        "training": f"learning rate {config.learning_rate:g}, batch {config.batch_size}, warm-up {config.warmup}{weight}, seed {config.seed}",
        "command": document.command,
        "versions": ", ".join(f"{name} {version}" for name, version in document.versions.items()),
    }
    if others := [
        f"{name} {getattr(config, name)}"
        for name in LESS_OFTEN
        if getattr(config, name) != getattr(TrainConfig, name)
    ]:
        rows["other settings"] = ", ".join(others)
    if not document.own:
        rows["written by"] = "somebody else, or on another machine: the paths that it names are not followed"
    best = best_of(history, config.beta)
    if best is not None:
        minutes = sum(row["seconds"] for row in history) / 60.0
        rows["epochs"] = f"{len(history)} in {minutes:.1f} minutes"
        iwae = f", importance-weighted bound {best['val_iwae']:.2f}" if "val_iwae" in best else ""
        rows["best epoch"] = f"{best['epoch']}, validation ELBO {best['val_elbo']:.2f}{iwae}"
    else:
        rows["epochs"] = f"none. Next: tfvamp train --resume {opened}"
    rows["test log-likelihood"] = _evaluated(opened)
    output.table(str(opened), rows)


def _evaluated(run) -> str:
    """Returns the newest evaluation, and whether it is of the weights that the run has now."""
    result = run.evaluation()
    if result is None:
        return f"not estimated. Next: tfvamp evaluate {run}"
    if not result["current"]:
        epoch = result.get("epoch")
        of = "of other weights" if epoch is None else f"of epoch {epoch}"
        return f"{of}; trained on since: evaluate again with tfvamp evaluate {run}"
    what = light.files.counted(
        result["num_samples"], "chain" if result.get("estimator") == "ais" else "sample"
    )
    counts = f"{what} from the {result.get('proposal', 'encoder')} q, {light.files.counted(result['num_examples'], 'image')}"
    return f"{result['log_likelihood']:.3f} nats ({counts})"
