"""Texts that say what the numbers of diagnosis.json mean."""

from __future__ import annotations

from typing import Any

from tfvamp.evaluation import diagnostics

COLLAPSED = 0.1  # nats of KL below which a layer carries no information
COPIED = 0.05  # the share of test images that are this near to a training image


def findings(document: dict[str, Any]) -> list[str]:
    """Returns what the numbers of a diagnosis mean, in plain words."""
    found = []
    for name, layer in document["layers"].items():
        active, dims = layer["active_units"], layer["latent_dims"]
        if layer["kl"] < COLLAPSED or not active:
            found.append(
                f"{name} has collapsed: its posteriors are the prior (KL {layer['kl']:.2f} nats, {active} of {dims} "
                "latents active). The decoder models images without it. Take a longer warm-up or a weaker decoder."
            )
        elif active < dims:
            found.append(f"{name} uses {active} of {dims} latents; the others stay at the prior.")
    fit = document["fit"]
    if fit["gap"] > max(1.0, 2.0 * fit["gap_error"]):
        found.append(
            f"The ELBO is {fit['gap']:.1f} +- {fit['gap_error']:.1f} nats higher on training than on test images: {fit['gap_of_encoder']:.1f} "
            f"because the encoder fits test images worse, {fit['gap_of_decoder']:.1f} because decoder and prior do."
        )
    gap = fit["test"]["amortisation_gap"]
    if gap > 1.0:
        found.append(
            f"The encoder costs {gap:.1f} nats of ELBO on test images and {fit['train']['amortisation_gap']:.1f} on "
            "training images (amortisation gap): trust its estimate of log p(x) less than the refined one."
        )
    surgery = document["surgery"]["test"]
    share = surgery["marginal_kl"] / surgery["average_kl"] if surgery["average_kl"] > 0 else 0.0
    if surgery["mutual_information"] > 0.95 * surgery["ceiling"]:
        found.append(
            f"I(x; z) is at its ceiling log N = {surgery['ceiling']:.2f} nats: every image has latents of its own, and "
            f"the split of the KL says no more than that."
        )
    elif share > 0.5:
        found.append(
            f"{surgery['marginal_kl']:.1f} of {surgery['average_kl']:.1f} nats of KL come from a prior that does not "
            "match the aggregated posterior: a better prior would gain most of them."
        )
    components = document["components"]
    if components is not None and components["dead"]:
        found.append(
            f"{components['dead']} of {components['number']} components are dead (share of test latents below "
            f"{diagnostics.DEAD:.0%} of 1/K); {components['effective']:.0f} count."
        )
    samples = document["samples"]
    if samples["nearer_than_test"] > 2 * COPIED:
        found.append(
            f"{samples['nearer_than_test']:.0%} of the samples are nearer to a training image than {1 - COPIED:.0%} of "
            "the test images are: the model may copy training images, or its samples lack detail."
        )
    accuracy = samples["two_samples"]["accuracy"]
    if accuracy > 0.6:
        found.append(
            f"Samples and test images can be told apart by their nearest neighbours in pixels ({accuracy:.0%} of the "
            "time, where 50% is chance)."
        )
    return found


def described(result: dict[str, Any]) -> dict[str, str]:
    """Returns the numbers of a diagnosis as text, by their names."""
    fit, rows = result["fit"], {}
    for name in ("train", "test"):
        of_split = fit[name]
        rows[f"log p(x), {name}"] = (
            f"{of_split['refined_log_likelihood']:.2f} +- {of_split['standard_error']:.2f} nats refined, "
            f"{of_split['log_likelihood']:.2f} from the encoder's q"
        )
        rows[f"ELBO, {name}"] = (
            f"{of_split['elbo']:.2f} nats; refined {of_split['refined_elbo']:.2f}, amortisation gap "
            f"{of_split['amortisation_gap']:.2f}"
        )
    rows["train - test"] = (
        f"{fit['gap']:.2f} +- {fit['gap_error']:.2f} nats of ELBO: encoder {fit['gap_of_encoder']:.2f}, decoder and prior "
        f"{fit['gap_of_decoder']:.2f}"
    )
    for name, layer in result["layers"].items():
        rows[f"layer {name}"] = (
            f"KL {layer['kl']:.2f} nats, {layer['active_units']} of {layer['latent_dims']} latents active"
        )
    surgery = result["surgery"]["test"]
    rows["KL in two parts"] = (
        f"{surgery['average_kl']:.2f} nats = I(x; z) {surgery['mutual_information']:.2f} + KL(q(z) || p(z)) "
        f"{surgery['marginal_kl']:.2f} +- {surgery['monte_carlo_error']:.2f}; I is at most log N = "
        f"{surgery['ceiling']:.2f}"
    )
    components = result["components"]
    if components is not None:
        rows["components"] = (
            f"{components['effective']:.1f} of {components['number']} count, {components['dead']} dead, entropy "
            f"{components['entropy']:.2f} nats for one latent"
        )
    samples = result["samples"]
    rows["samples"] = (
        f"told from test images {samples['two_samples']['accuracy']:.0%} of the time by nearest neighbours; "
        f"{samples['nearer_than_test']:.0%} nearer to a training image than 95% of the test images"
    )
    if "pseudo_inputs" in result:
        rows["pseudo-inputs"] = (
            f"{result['pseudo_inputs']['median_distance']:.3f} from the nearest training image in the median (root "
            f"mean squared difference of pixels); test images {samples['median_distance_of_test']:.3f}"
        )
    if result["clusters"] is not None:
        clusters = result["clusters"]
        rows["components and labels"] = (
            f"accuracy {clusters['accuracy']:.1%}, normalised mutual information "
            f"{clusters['normalised_mutual_information']:.3f}, adjusted Rand index {clusters['adjusted_rand_index']:.3f}"
        )
    if result["probes"] is not None:
        probes = result["probes"]
        rows["representation"] = (
            f"labels of test images from z: 5 nearest {probes['nearest_neighbours']:.1%}, linear {probes['linear']:.1%}"
        )
    return rows
