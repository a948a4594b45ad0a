"""The gradient of a step, computed in parts, so that its memory does not grow with the number of samples."""

from __future__ import annotations

import tensorflow as tf

from tfvamp.objectives import Part


def gradients(
    model, images, seed: tf.Tensor, total: int | tf.Tensor, part: Part | None, size: int
) -> tuple[tf.Tensor, list[tf.Tensor], list[tf.Tensor]]:
    """Computes the result of `LatentVariableModel.gradients` in parts of `size` images.

    Each image has the same noise as in the whole batch, so that the sum is the same except for
    rounding. The prior is computed once: the tensors of its distribution are watched in each part,
    and their summed gradients are propagated back through it at the end. If each image has a prior
    of its own, made of its neighbours, each part computes its own.

    Args:
      model: a model whose `couples_images` is false.
      images: [B, H, W, C] with known B, or a dictionary of images and their indices.
      seed, total, part: as in `LatentVariableModel.gradients`.
      size: number of images at a time.
    """
    variables, count = [one.value for one in model.trainable_variables], tf.nest.flatten(images)[0].shape[0]
    first, whole = (0, count) if part is None else part
    with tf.GradientTape() as through_prior:
        prior = model.prior_of_step(seed)
        if prior is not None and not hasattr(prior, "rebuilt"):
            raise TypeError(
                f"a {type(prior).__name__} as a prior cannot be taken in parts of a batch: give it tensors() and "
                "rebuilt(tensors), as tfvamp's distributions have, or raise step_memory"
            )
        tensors = [] if prior is None else [tf.convert_to_tensor(one) for one in prior.tensors()]
        penalty = model.penalty(images, total)
        scaled_penalty = model.optimizer.scale_loss(penalty)

    def of_part(start: int | tf.Tensor, length: int) -> tuple[tf.Tensor, list[tf.Tensor], tf.Tensor]:
        rows = tf.nest.map_structure(lambda one: _rows(one, start, length), images)
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            own = None if prior is None else prior.rebuilt(tensors)
            bound = model._bound(rows, seed, model.beta, True, Part(first + start, whole), own)
            loss = -tf.reduce_sum(bound.surrogate) / tf.cast(total, bound.surrogate.dtype)
            scaled_loss = model.optimizer.scale_loss(loss)
        found = tape.gradient(
            scaled_loss, [*variables, *tensors], unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        return loss, [tf.convert_to_tensor(one) for one in found], tf.stack(model.tracked(bound))

    parts = count // size
    loss, sums, tracked = of_part(0, size)
    values = tf.TensorArray(tracked.dtype, parts, element_shape=tracked.shape).write(0, tracked)

    def body(index, loss, sums, values):
        more, gradients, tracked = of_part(index * size, size)
        added = [a + b for a, b in zip(sums, gradients, strict=True)]
        return index + 1, loss + more, added, values.write(index, tracked)

    _, loss, sums, values = tf.while_loop(
        lambda index, *_: index < parts, body, (tf.constant(1), loss, sums, values), parallel_iterations=1
    )
    joined = [tf.reshape(tf.transpose(values.stack(), [1, 0, 2]), [tracked.shape[0], parts * size])]
    if rest := count % size:
        with tf.control_dependencies(sums):
            more, gradients_of_rest, tracked = of_part(parts * size, rest)
        loss, sums = loss + more, [a + b for a, b in zip(sums, gradients_of_rest, strict=True)]
        joined.append(tracked)
    direct, of_prior = sums[: len(variables)], sums[len(variables) :]
    through = through_prior.gradient(
        [*tensors, scaled_penalty],
        variables,
        [*of_prior, tf.ones_like(scaled_penalty)],
        unconnected_gradients=tf.UnconnectedGradients.ZERO,
    )
    gradients = [a + tf.convert_to_tensor(b) for a, b in zip(direct, through, strict=True)]
    return loss + tf.cast(penalty, loss.dtype), gradients, tf.unstack(tf.concat(joined, axis=1))


def _rows(array: tf.Tensor, start: int | tf.Tensor, length: int) -> tf.Tensor:
    """Returns `length` rows of an array [B, ...], from row `start`."""
    rest = array.shape[1:].as_list()
    return tf.slice(array, tf.stack([start, *[0] * len(rest)]), [length, *rest])
