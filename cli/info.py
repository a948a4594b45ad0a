"""tfvamp info."""

from __future__ import annotations

import click

from tfvamp_cli import options


@click.command("info")
@options.run
def command(run):
    """Show what a run is and how far it got.

    \b
    Example:
      tfvamp info runs/first
    """
    from tfvamp.datasets.catalog import VERIFIED
    from tfvamp.training import RunFolder
    from tfvamp_cli import output

    folder = RunFolder.open(run)
    document = folder.read_document()
    config = folder.read_config()
    history = folder.read_history()
    mixture = "" if config.prior == "standard" else f", K = {config.components}"
    objective = (
        config.objective if config.num_samples == 1 else f"{config.objective}, L = {config.num_samples}"
    )
    if config.objective != "elbo":
        gradient = ", doubly reparameterised gradient" if config.dreg else ""
        objective += f", S = {config.importance_samples}{gradient}"
    rows = {
        "data": config.dataset,
        "data verified": VERIFIED[document["data"].get("verified")],
        "model": f"{config.model}, prior {config.prior}{mixture}, likelihood {config.likelihood}",
        "objective": objective,
        "training": f"learning rate {config.learning_rate:g}, batch {config.batch_size}, warm-up {config.warmup}, seed {config.seed}",
        "command": document.get("command", "?"),
        "versions": ", ".join(f"{name} {version}" for name, version in document.get("versions", {}).items()),
    }
    if history:
        best = max(history, key=lambda row: row["val_elbo"])
        minutes = sum(row["seconds"] for row in history) / 60.0
        rows["epochs"] = f"{len(history)} in {minutes:.1f} minutes"
        rows["best epoch"] = f"{best['epoch']}, validation ELBO {best['val_elbo']:.2f}"
    else:
        rows["epochs"] = f"none. Next: tfvamp train --resume {run}"
    result = folder.read_evaluation()
    if result is not None:
        rows["test log-likelihood"] = (
            f"{result['log_likelihood']:.3f} nats ({result['num_samples']} samples, {result['num_examples']} images)"
        )
    else:
        rows["test log-likelihood"] = f"not estimated. Next: tfvamp evaluate {run}"
    output.table(str(run), rows)
