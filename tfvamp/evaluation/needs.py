"""The needs of an evaluation: memory, of which too much is refused, and time, which is reported beforehand."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import tensorflow as tf

from tfvamp import memory, seeds
from tfvamp.blocks import largest, rows_of, rows_of_gradients
from tfvamp.config import Estimation
from tfvamp.errors import UsageError
from tfvamp.evaluation import proposals
from tfvamp.evaluation.annealing import PILOTS
from tfvamp.evaluation.images import AT_ONCE, encode
from tfvamp.evaluation.protocol import Evaluable, levels_of, prior_of
from tfvamp.files import counted, size
from tfvamp.graph import traced

COPIES = 8  # of a mixing while it is fitted: the mixing itself, Adam's moments, gradients
REPEATS, LONGEST_MEASUREMENT = 5, 1.0  # how often a block is measured, and for how many seconds together
WORTH_MEASURING = 10**9  # pixels times features of all decoded latents
WORTH_SAYING = 60.0  # seconds


def latent_dims(model: Evaluable, prior) -> list[int]:
    """Returns D of each stochastic layer, the top one first."""
    return [prior.event_shape[0], *(level.dims for level in levels_of(model))]


def images_refined_at_once(
    model: Evaluable, event_shape: tuple[int, ...], dims: Sequence[int], how: Estimation
) -> int:
    """Returns how many images are refined at a time: as many as there is room for gradients, noise and mixings."""
    rows = rows_of_gradients(model, event_shape, how.max_bytes)
    values = largest(how.max_bytes) // _values_refined(dims, how)
    return max(1, min(AT_ONCE, values, rows // how.refine_samples))


def _values_refined(dims: Sequence[int], how: Estimation) -> int:
    """Returns the number of values in the noise and the mixing of one image."""
    return how.refine_steps * how.refine_samples * sum(dims) + COPIES * sum(dims) ** 2


def check_memory(dims: Sequence[int], how: Estimation) -> None:
    """Raises UsageError if a single image needs more than `max_memory`, or more memory than there is.

    Args:
      dims: number of latents of each stochastic layer.
      how: the settings.
    """
    needs = []
    if how.estimator == "importance":
        noise = 8.0 * sum(dims) + 8.0 * (1 + len(dims))
        needs.append((how.samples * noise, f"{counted(how.samples, 'sample')} of an image", "fewer samples"))
    if how.proposal == "refined":
        values = 4.0 * _values_refined(dims, how)
        needs.append(
            (
                values,
                f"the {how.refine_steps} refinement steps of an image",
                "fewer refinement steps or samples",
            )
        )
    for needed, what, less in needs:
        memory.check(needed, what, f"choose {less}")
        if needed > how.max_bytes:
            raise UsageError(
                f"{what} would need {size(needed)} of memory, and max_memory is {how.max_memory} GiB: raise it, or "
                f"choose {less}"
            )


def seconds(model: Evaluable, image: tf.Tensor, count: int, how: Estimation) -> dict[str, float]:
    """Returns the approximate duration of each part of `tfvamp evaluate`, measured on one block of latents.

    Args:
      image: one of the images, [1, H, W, C].
      count: number of images.
    """
    event_shape, levels, prior = tuple(image.shape[1:]), levels_of(model), prior_of(model)
    start = proposals.of_encoder(encode(model, image)[0])

    def per_latent(rows: int, gradient: bool) -> float:
        noise = [
            seeds.normal([rows, 1, dims], seeds.stateless(layer))
            for layer, dims in enumerate(latent_dims(model, prior))
        ]

        def weights(noise):
            with tf.GradientTape() as tape:
                tape.watch(noise)
                parts = proposals.log_weight_parts(start, image, noise, prior, model.likelihood, levels)
                total = parts.reconstruction - parts.kl
            return tape.gradient(total, noise)[0] if gradient else total

        block = traced(weights)
        block(noise).numpy()
        times: list[float] = []
        while len(times) < REPEATS and sum(times) < LONGEST_MEASUREMENT:
            began = time.perf_counter()
            block(noise).numpy()
            times.append(time.perf_counter() - began)
        return min(times) / rows  # other work on the machine only makes it longer

    samples, gradients, chains = _work(how)
    found = {}
    if samples:
        rows = rows_of(model, event_shape, how.max_bytes)
        found["importance sampling"] = samples * count * per_latent(rows, gradient=False)
    if gradients or chains:
        slope = per_latent(rows_of_gradients(model, event_shape, how.max_bytes), gradient=True)
        found |= {"refinement": gradients * count * slope, "chains": chains * count * slope}
    return {name: value for name, value in found.items() if value}


def _work(how: Estimation) -> tuple[int, int, int]:
    """Returns the latents decoded per image, those with gradients in a refinement, and those by chains."""
    of_encoder = how.samples if how.estimator != "bdmc" else 0
    refined = how.proposal == "refined"
    if how.estimator == "importance":
        return of_encoder * (1 + refined), how.refine_steps * how.refine_samples * refined, 0
    chains = how.chains * (2 if how.estimator == "bdmc" else 1) + min(PILOTS, how.chains)
    gradients = how.refine_steps * how.refine_samples * refined
    return of_encoder, gradients, chains * how.steps * how.leapfrogs


def say_time(
    model: Evaluable, image: tf.Tensor, count: int, how: Estimation, say: Callable[[str], None]
) -> None:
    """Reports how long a long evaluation will take, and what would be faster; the arguments are those of `seconds`."""
    samples, gradients, chains = _work(how)
    pixels = math.prod(image.shape[1:]) * getattr(model, "features_per_pixel", 1)
    if (samples + 3 * (gradients + chains)) * count * pixels < WORTH_MEASURING:
        return
    parts = seconds(model, image, count, how)
    total = sum(parts.values())
    if total < WORTH_SAYING:
        return
    listed = ", ".join(f"{name} {_duration(value)}" for name, value in parts.items())
    fewer = "fewer samples" if how.estimator == "importance" else "fewer steps or chains"
    say(
        f"{counted(count, 'image')} will take about {_duration(total)}{f' ({listed})' if len(parts) > 1 else ''}: a smaller limit "
        f"or {fewer} would be faster; what is stopped can go on later"
    )


def _duration(value: float) -> str:
    for unit, length in (("hours", 3600.0), ("minutes", 60.0)):
        if value >= 2 * length:
            return f"{value / length:.0f} {unit}"
    return f"{max(value, 1.0):.0f} seconds"
