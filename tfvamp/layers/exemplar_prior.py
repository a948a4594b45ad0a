"""The prior of the Exemplar VAE: a mixture of the encoder's means at the training images."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tfvamp.errors import UsageError
from tfvamp.layers import indices as numbers_of_images
from tfvamp.layers import pseudo_inputs
from tfvamp.layers.gaussian import LOG_VARIANCE_BOUNDS, DiagonalGaussian
from tfvamp.layers.mixture import DiagonalGaussianMixture
from tfvamp.layers.priors import SomeComponents
from tfvamp.layers.vamp_prior import VampPriorLayer

AT_ONCE = 2**24  # number of distances computed at a time


class LeaveOneOut(NamedTuple):
    """The density of a mixture of exemplars that leaves out each image's own component.

    log_prob(z)_b = log (1/n_b sum_k N(z_b; component k)) over the n_b components k that are not
    left out for image b, which may be an exemplar itself. If the M exemplars are chosen at random
    from N, exp(log_prob) has as its mean the density of all N exemplars without image b.

    Attributes:
      mixture: mixture of M components with equal weights.
      left_out: whether a component is the image's own, [B, M].
    """

    mixture: DiagonalGaussianMixture
    left_out: tf.Tensor

    @property
    def dtype(self) -> tf.DType:
        """The dtype of densities."""
        return self.mixture.dtype

    @property
    def event_shape(self) -> tf.TensorShape:
        """The event shape, [D]."""
        return self.mixture.event_shape

    def log_prob(self, z) -> tf.Tensor:
        """Returns log p(z) [..., B] at latents z [..., B, D] of the batch's images, in nats."""
        parts = self.mixture.component_log_prob(z)  # [..., B, M], with weights 1/M
        parts = tf.where(self.left_out, -math.inf, parts)
        counts = tf.reduce_sum(tf.cast(~self.left_out, parts.dtype), axis=-1)
        share = math.log(self.mixture.num_components) - tf.math.log(counts)
        return tf.reduce_logsumexp(parts, axis=-1) + share


class OfNeighbours(NamedTuple):
    """The density of a mixture of exemplars at the latents of exemplars, from the nearest others of each image only.

    log_prob(z)_b = log (1/(N - 1) sum_k N(z_b; component of the k-th neighbour of image b)). It is
    never above the density of all N exemplars without image b, because it leaves out terms of that
    sum (Norouzi, Fleet and Norouzi 2020, section 3).

    Attributes:
      components: components of the neighbours, batch shape [B, M].
      others: N - 1.
    """

    components: DiagonalGaussian
    others: int

    @property
    def dtype(self) -> tf.DType:
        """The dtype of densities."""
        return self.components.dtype

    @property
    def event_shape(self) -> tf.TensorShape:
        """The event shape, [D]."""
        return self.components.event_shape

    def log_prob(self, z) -> tf.Tensor:
        """Returns log p(z) [..., B] at latents z [..., B, D] of the batch's images, in nats."""
        parts = self.components.log_prob(tf.expand_dims(z, -2))  # [..., B, M]
        return tf.reduce_logsumexp(parts, axis=-1) - math.log(self.others)


@keras.saving.register_keras_serializable(package="tfvamp")
class ExemplarPriorLayer(VampPriorLayer):
    """p(z) = 1/N sum_n N(z; m(x_n), v I): the prior of the Exemplar VAE, Norouzi, Fleet and Norouzi (2020), equation 5.

    m(x_n) is the mean of the encoder's posterior at the training image x_n, and v is one learned
    variance shared by all components. The exemplars x_n are weights that are not trained, so they
    are stored with the model.

    During training, each image is left out of its own prior (`leaving_out`). Otherwise the prior
    could put all its mass on the images that it has seen. With many exemplars, a training step can
    use M of them chosen at random (`of_some`), or the nearest ones of each image (`of_neighbours`).

    Args:
      encoder: as for `VampPriorLayer`.
      exemplars: the training images, an array [N, *event] (or a structure of arrays, as the encoder
        takes its inputs); or an initializer, if `num_components` is given and the weights are
        loaded afterwards.
      num_components: N; None for the length of `exemplars`.
      event_shape, bounds: as for `VampPriorLayer`.
      initial_variance: initial value of v.

    Raises:
      ValueError: as for `VampPriorLayer`; or `initial_variance` lies outside the bounds of log-variances, exp(-6) to exp(2).

    >>> encoder = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4)])
    >>> prior = ExemplarPriorLayer(encoder, exemplars=np.random.rand(50, 6))
    >>> prior.log_prob(prior.sample(3, seed=0)).shape
    TensorShape([3])
    """

    uses_indices = True

    def __init__(
        self,
        encoder: keras.layers.Layer,
        exemplars=None,
        num_components: int | None = None,
        event_shape=None,
        bounds=(0.0, 1.0),
        initial_variance: float = 0.1,
        **kwargs,
    ):
        if num_components is None:
            if not (leaves := tf.nest.flatten(exemplars)) or not hasattr(leaves[0], "__len__"):
                raise ValueError(
                    "a prior of exemplars needs exemplars, an array [N, *event], or num_components"
                )
            num_components = len(leaves[0])
        super().__init__(
            encoder, num_components, event_shape, initial=exemplars, bounds=bounds, trainable=False, **kwargs
        )
        low, high = (math.exp(bound) for bound in LOG_VARIANCE_BOUNDS)
        if not low < initial_variance < high:  # outside it would get no gradient
            raise ValueError(
                f"initial_variance must lie between {low:.2g} and {high:.3g}; got {initial_variance}"
            )
        self.initial_variance = float(initial_variance)
        self._neighbours: dict[int, np.ndarray] = {}
        self._neighbours_of = b""  # the digest of the exemplars that they belong to
        self.log_variance = self.add_weight(
            name="log_variance", shape=(), initializer=keras.initializers.Constant(math.log(initial_variance))
        )

    def adapt(self, data, seed: int = 0) -> None:
        """Takes N random data points as exemplars; see `VampPriorLayer.adapt`.

        Indices for `leaving_out` must follow the order of the exemplars in `pseudo_inputs`.
        """
        super().adapt(data, seed)

    def leaving_out(self, prior: DiagonalGaussianMixture | SomeComponents, indices: tf.Tensor) -> LeaveOneOut:
        """Returns p(z) for training on the exemplars themselves: each image's density without its own component.

        Args:
          prior: the result of `distribution` or `of_some`, with at least two components.
          indices: [B], each image's index among the exemplars; an index of none of them (such as
            -1) leaves out nothing.

        Raises:
          ValueError: the prior has only one component, or the indices are not whole numbers [B].
        """
        if isinstance(prior, SomeComponents):
            mixture, numbers = prior.mixture, prior.chosen
        else:
            mixture, numbers = prior, tf.range(self.num_components)
        if mixture.num_components < 2:
            raise ValueError("a prior of one exemplar cannot leave out an image: it needs at least two")
        left_out = tf.cast(numbers_of_images.checked(indices), numbers.dtype)[:, tf.newaxis] == numbers
        return LeaveOneOut(mixture, left_out)

    def of_neighbours(self, count: int, indices: tf.Tensor) -> OfNeighbours:
        """Returns p(z) for training on the exemplars themselves, from the nearest others of each image only.

        Exemplars are near if their values are (for images, their pixels). The neighbours are found
        once, which takes N^2 distances.

        Args:
          count: M, number of neighbours per image.
          indices: [B], each image's index among the exemplars.

        Raises:
          UsageError: there are fewer than `count` other exemplars.
        """
        indices = numbers_of_images.checked(indices)
        chosen = tf.reshape(tf.gather(self.neighbours(count), indices), [-1])  # [B M]
        weights = self._weights()
        inputs = {key: part.seen(tf.gather(weights[key], chosen)) for key, part in self._parts.items()}
        of_each = self._component_of(self._encoded(pseudo_inputs.structure_of(inputs), count))
        shape = tf.concat([tf.shape(indices), [count], of_each.event_shape], axis=0)
        loc, log_variance = (tf.reshape(one, shape) for one in (of_each.loc, of_each.log_variance))
        return OfNeighbours(DiagonalGaussian(loc, log_variance), self.num_components - 1)

    def neighbours(self, count: int) -> np.ndarray:
        """Returns the indices of the nearest other exemplars of each exemplar, nearest first, [N, count], int32.

        They are found at the first call, and again when the exemplars have changed. A compiled step keeps those
        that it was traced with.

        Raises:
          UsageError: there are fewer than `count` other exemplars.
        """
        if not 1 <= count < self.num_components:
            raise UsageError(
                f"the number of neighbours must be at least 1 and below the number of exemplars, {self.num_components}; "
                f"got {count}"
            )
        with tf.init_scope():  # concrete values, also inside a graph
            leaves = [weight.numpy() for weight in self._weights().values()]
        if (digest := digest_of(leaves)) != self._neighbours_of:
            self._neighbours.clear()
            self._neighbours_of = digest
        if count not in self._neighbours:
            rows = [leaf.reshape(self.num_components, -1).astype(np.float32) for leaf in leaves]
            self._neighbours[count] = nearest_others(np.concatenate(rows, axis=1), count)
        return self._neighbours[count]

    def _component_of(self, posterior: DiagonalGaussian, chosen: tf.Tensor | None = None) -> DiagonalGaussian:
        del chosen
        shared = tf.cast(tf.convert_to_tensor(self.log_variance), posterior.dtype)
        shared = tf.clip_by_value(shared, *LOG_VARIANCE_BOUNDS)
        return DiagonalGaussian(posterior.loc, tf.fill(tf.shape(posterior.loc), shared))

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["weighted"], config["trainable"]
        return {**config, "initial_variance": self.initial_variance}

    @classmethod
    def from_config(cls, config, encoder: keras.layers.Layer | None = None):
        """Returns the layer built from a config; its exemplars are 0 until its weights are loaded."""
        return super().from_config({**config, "exemplars": pseudo_inputs.LOADED_LATER}, encoder)


def digest_of(arrays: Sequence[np.ndarray]) -> bytes:
    """Returns a digest that differs between different arrays."""
    digest = hashlib.blake2b(digest_size=16)
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.digest()


def nearest_others(rows: np.ndarray, count: int) -> np.ndarray:
    """Returns the indices of the `count` nearest other rows of each row [N, F], nearest first, int32."""
    squares = np.einsum("nf,nf->n", rows, rows)
    found, size = [], max(1, AT_ONCE // len(rows))
    for first in range(0, len(rows), size):
        part = rows[first : first + size]
        distance = squares - 2.0 * part @ rows.T  # the row's own square is omitted: it is the same for all
        distance[np.arange(len(part)), np.arange(first, first + len(part))] = np.inf
        near = np.argpartition(distance, count - 1, axis=1)[:, :count]
        order = np.lexsort((near, np.take_along_axis(distance, near, axis=1)), axis=1)
        found.append(np.take_along_axis(near, order, axis=1).astype(np.int32))
    return np.concatenate(found)
