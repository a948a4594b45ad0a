"""Priors p(z) as Keras layers: the base class, the base class of mixtures, and the two priors that need no network.

All priors share one contract: `layer()` and `layer.distribution()` return the `tfd` distribution,
built from the current weights at each call; `layer(z)` and `layer.log_prob(z)` return log p(z);
`sample` draws from it. Mixtures also have `components` and `responsibilities`.
"""

from __future__ import annotations

import abc
import numbers
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfvamp import seeds
from tfvamp.errors import UsageError
from tfvamp.layers.gaussian import (
    LOG_VARIANCE_BOUNDS,
    DiagonalGaussian,
    as_diagonal_gaussian,
    at_least_float32,
)
from tfvamp.layers.mixture import DiagonalGaussianMixture


class PriorLayer(keras.layers.Layer, abc.ABC):
    """A prior over latents of D dimensions; subclasses define its distribution.

    A prior that needs something special from training overrides the members that have no effect
    here. `adapt` initialises it from data, `of_some` returns what a step takes as p(z),
    `uses_indices` asks for the index of each training image, `leaving_out` gets these indices, and
    `penalty` is added to the loss.

    Densities stay in float32 under mixed precision: z is not cast down. They are in float64 if the
    layer's weights are (`keras.config.set_floatx("float64")`).

    >>> class WidePrior(PriorLayer):
    ...     def distribution(self):
    ...         return DiagonalGaussian(tf.zeros([2]), tf.fill([2], 1.0))
    >>> WidePrior().sample(3, seed=0).shape
    TensorShape([3, 2])
    """

    # What `log_prob` is: "exact", "bound" (too low on average) or "estimate". Evaluations record it.
    density = "exact"
    # Whether training must give the indices of a batch's training images: see `leaving_out`.
    uses_indices = False

    def __init__(self, **kwargs):
        super().__init__(**{"autocast": False, **kwargs})

    @property
    def density_dtype(self) -> str:
        """The dtype in which log p(z) is computed: "float32" or "float64"."""
        return at_least_float32(self.variable_dtype)

    @abc.abstractmethod
    def distribution(self) -> tfd.Distribution:
        """Returns p(z), event shape [D], from the current weights."""

    def clipped_pseudo_inputs(self) -> Any:
        """Returns the pseudo-inputs [K, *event] of the components; None for a prior without pseudo-inputs."""
        return None

    def adapt(self, data, seed: int = 0) -> None:
        """Initialises the prior from data, if it can; the arguments are those of `VampPriorLayer.adapt`."""
        del data, seed

    def is_mixture(self) -> bool:
        """Returns whether the distribution knows its components, as mixture layers and flows over them do."""
        return getattr(self.distribution(), "num_components", None) is not None

    def centres(self) -> tf.Tensor | None:
        """Returns one latent per component to look at, [K, D]; None for a prior without components.

        It is the mean of the component, mapped by the flow if there is one.
        """
        return None

    def of_some(self, count: int, seed: tf.Tensor) -> Any:
        """Estimates p(z) from `count` of the K components, chosen by the seed.

        For a prior that is not a mixture, it returns p(z) itself. The result has `log_prob`,
        `tensors` and `rebuilt`, as tfvamp's distributions have.

        Args:
          count: M, number of components, chosen without repetition; all of them if K is not larger.
          seed: seed of the choice, [2].
        """
        del count, seed
        return self.distribution()

    def of_neighbours(self, count: int, indices: tf.Tensor) -> Any:
        """Returns p(z) for training, from the `count` components nearest to each image only; for priors of exemplars.

        Args:
          count: M, number of components per image.
          indices: [B], indices of the batch's images among the training images.

        Raises:
          UsageError: the prior has no exemplars.
        """
        raise UsageError("neighbours_per_step goes with a prior of exemplars")

    def leaving_out(self, prior: Any, indices: tf.Tensor) -> Any:
        """Returns p(z) for training on images that the prior was made from: each image's density without that image.

        Args:
          prior: the result of `distribution` or `of_some`.
          indices: [B], indices of the batch's images among the training images.
        """
        del indices
        return prior

    def penalty(self) -> tf.Tensor | None:
        """Returns the term that training adds to the loss, a scalar in nats per image; None for no term."""
        return None

    def call(self, z=None):
        """Returns p(z) without an argument, or log p(z) [...] in nats for z [..., D]."""
        if z is None:
            return self.distribution()
        prior = self.distribution()
        return prior.log_prob(_latents(prior, z))

    def compute_output_spec(self, z):
        """Returns the shape of log p(z) for symbolic inputs: the shape of z without D."""
        return keras.KerasTensor(tuple(z.shape[:-1]), dtype=self.density_dtype)

    def log_prob(self, z) -> tf.Tensor:
        """Returns log p(z) [...] for z [..., D], in nats: the same as `layer(z)`."""
        return self(z)

    def sample(self, n: int, seed: seeds.Seed = None) -> tf.Tensor:
        """Returns n draws [n, D].

        Args:
          n: number of draws.
          seed: an integer, a pair of integers or a tensor [2], each of which always gives the same
            draws; a `keras.random.SeedGenerator`, which advances with each call; or None for draws
            that follow `keras.utils.set_random_seed`.
        """
        return self.distribution().sample(n, seed=seeds.as_seed(seed))

    def sample_component(self, component: int, n: int, seed: seeds.Seed = None) -> tf.Tensor:
        """Returns n draws [n, D] from a single component of a mixture, numbered from 0; `seed` as in `sample`.

        Raises:
          UsageError: there is no such component.
        """
        if not self.is_mixture():
            raise UsageError(f"the prior is no mixture, and has no component {component}")
        prior = self.distribution()
        if not 0 <= component < prior.num_components:
            raise UsageError(f"the prior has components 0 to {prior.num_components - 1}; got {component}")
        return prior.sample_component(component, n, seeds.as_seed(seed))

    def responsibilities(self, z) -> tf.Tensor:
        """Returns p(k | z) for each component of a mixture, [..., K], given z [..., D]; they sum to 1.

        Raises:
          UsageError: the prior is not a mixture.
        """
        if not self.is_mixture():
            raise UsageError("the prior is no mixture, and has no components")
        prior = self.distribution()
        return tf.nn.softmax(prior.component_log_prob(_latents(prior, z)))


class MixturePriorLayer(PriorLayer):
    """A prior p(z) = sum_k w_k q_k(z) of K diagonal normals.

    Subclasses define `components`, and `log_weights` if the weights are not all equal.

    >>> class TwoPoints(MixturePriorLayer):
    ...     def components(self):
    ...         return DiagonalGaussian(tf.constant([[-3.0], [3.0]]), tf.zeros([2, 1]))
    >>> TwoPoints().responsibilities(tf.constant([[3.0]])).numpy().round(3)
    array([[0., 1.]], dtype=float32)
    """

    @abc.abstractmethod
    def components(self) -> DiagonalGaussian:
        """Returns the K components, batch shape [K], from the current weights."""

    def log_weights(self, components: DiagonalGaussian) -> tf.Tensor:
        """Returns log w_k [K], up to a constant, for the components that `components` returned."""
        return tf.zeros(components.loc.shape[:-1], components.dtype)

    def distribution(self) -> DiagonalGaussianMixture:
        """Returns p(z), event shape [D], from the current weights."""
        components = as_diagonal_gaussian(self.components())
        log_weights, shape = self.log_weights(components), components.loc.shape
        if shape.rank != 2 or not log_weights.shape.is_compatible_with(shape[:1]):
            raise ValueError(
                f"{type(self).__name__} must have components [K, D] and log_weights [K]; got {list(shape)} and "
                f"{list(log_weights.shape)}"
            )
        return mixture_of(log_weights, components)

    def centres(self) -> tf.Tensor:
        return as_diagonal_gaussian(self.components()).mean()


class SomeComponents(NamedTuple):
    """An estimate of the density of a mixture from M of its K components, chosen uniformly without repetition.

    K/M times the sum of w_k q_k(z) over the chosen components has the mean p(z). Its logarithm is
    too low on average (Jensen), by about half its relative variance, so that the ELBO with it stays
    a lower bound.

    Attributes:
      mixture: the mixture of the chosen components, with normalised weights.
      log_scale: the logarithm of K/M times the sum of the chosen weights; 0 if all weights are
        equal.
      chosen: the indices [M] of the chosen components.
    """

    mixture: DiagonalGaussianMixture
    log_scale: tf.Tensor
    chosen: tf.Tensor

    def log_prob(self, z) -> tf.Tensor:
        """Returns the logarithm of the estimate [...] at z [..., D], in nats."""
        return self.mixture.log_prob(z) + self.log_scale

    @property
    def dtype(self) -> tf.DType:
        """The dtype of densities."""
        return self.mixture.dtype

    @property
    def event_shape(self) -> tf.TensorShape:
        """The event shape, [D]."""
        return self.mixture.event_shape

    def tensors(self) -> tuple[tf.Tensor, ...]:
        """Returns the tensors that make up the estimate."""
        return *self.mixture.tensors(), self.log_scale

    def rebuilt(self, tensors: Sequence[tf.Tensor]) -> SomeComponents:
        """Returns the estimate that these tensors make up."""
        return SomeComponents(self.mixture.rebuilt(tensors[:-1]), tensors[-1], self.chosen)


def _latents(prior, z) -> tf.Tensor:
    """Returns z [..., D] in the prior's dtype, after checking its shape.

    Raises:
      ValueError: the last axis of z is not D long.
    """
    z = z if tf.is_tensor(z) else tf.convert_to_tensor(z, prior.dtype)
    if z.shape.rank is None or z.shape[-1:] not in ((None,), (prior.event_shape[0],)):
        raise ValueError(f"z must have shape [..., D] = [..., {prior.event_shape[0]}]; got {list(z.shape)}")
    return tf.cast(z, prior.dtype)


def choose(count: int, total: int, seed: tf.Tensor) -> tf.Tensor:
    """Returns M of K indices, chosen uniformly without repetition."""
    return tf.math.top_k(seeds.uniform([total], seed, tf.float64), count).indices


@keras.saving.register_keras_serializable(package="tfvamp")
class StandardNormalPriorLayer(PriorLayer):
    """The standard normal prior, p(z) = N(0, I).

    Args:
      latent_dims: D.

    >>> prior = StandardNormalPriorLayer(latent_dims=2)
    >>> float(prior.log_prob(tf.zeros([2])))  # doctest: +ELLIPSIS
    -1.837...
    """

    def __init__(self, latent_dims: int, **kwargs):
        super().__init__(**kwargs)
        self.latent_dims = at_least_one("latent_dims", latent_dims)

    def distribution(self) -> DiagonalGaussian:
        zeros = tf.zeros([self.latent_dims], self.density_dtype)
        return DiagonalGaussian(zeros, zeros)

    def get_config(self):
        return {**super().get_config(), "latent_dims": self.latent_dims}


@keras.saving.register_keras_serializable(package="tfvamp")
class MixtureOfGaussiansPriorLayer(MixturePriorLayer):
    """A mixture of normals as prior, p(z) = 1/K sum_k N(z; loc_k, diag(exp(log_variance_k))), with free parameters.

    The paper gives no initial values; ours are loc ~ N(0, 1) and log_variance = 0, so that
    the prior starts near N(0, 2 I) with distinct components. The log-variance is clipped to
    [-6, 2], like that of the posterior.

    Args:
      num_components: K.
      latent_dims: D.

    >>> prior = MixtureOfGaussiansPriorLayer(num_components=5, latent_dims=2)
    >>> prior.components().batch_shape, prior.sample(3, seed=0).shape
    (TensorShape([5]), TensorShape([3, 2]))
    """

    def __init__(self, num_components: int, latent_dims: int, **kwargs):
        super().__init__(**kwargs)
        self.num_components = at_least_one("num_components", num_components)
        self.latent_dims = at_least_one("latent_dims", latent_dims)
        shape = (self.num_components, self.latent_dims)
        self.loc = self.add_weight(
            name="loc", shape=shape, initializer=keras.initializers.RandomNormal(stddev=1.0)
        )
        self.log_variance = self.add_weight(name="log_variance", shape=shape, initializer="zeros")
        self.built = True

    def components(self) -> DiagonalGaussian:
        return self._components(tf.convert_to_tensor(self.loc), tf.convert_to_tensor(self.log_variance))

    def _components(self, loc: tf.Tensor, log_variance: tf.Tensor) -> DiagonalGaussian:
        log_variance = tf.cast(log_variance, self.density_dtype)
        loc = tf.cast(loc, self.density_dtype)
        return DiagonalGaussian(loc, tf.clip_by_value(log_variance, *LOG_VARIANCE_BOUNDS))

    def of_some(self, count: int, seed: tf.Tensor) -> tfd.Distribution | SomeComponents:
        if count >= self.num_components:
            return self.distribution()
        chosen = choose(count, self.num_components, seed)
        components = self._components(tf.gather(self.loc, chosen), tf.gather(self.log_variance, chosen))
        zeros = tf.zeros([count], self.density_dtype)
        return SomeComponents(mixture_of(zeros, components), tf.zeros([], self.density_dtype), chosen)

    def get_config(self):
        config = {"num_components": self.num_components, "latent_dims": self.latent_dims}
        return {**super().get_config(), **config}


def mixture_of(logits: tf.Tensor, components: DiagonalGaussian) -> DiagonalGaussianMixture:
    """Returns the mixture of components, batch shape [K], with the weights softmax(logits) for logits [K]."""
    return DiagonalGaussianMixture(tfd.Categorical(logits=logits), components)


def width_of(prior: PriorLayer) -> int:
    """Returns D, the number of latents of a prior, without computing anything."""
    shape: list[int] = []
    tf.function(
        lambda: shape.append(prior.distribution().event_shape[0]), autograph=False
    ).get_concrete_function()
    return shape[0]


def at_least_one(name: str, value: int) -> int:
    """Returns the value as an integer, after checking it.

    Raises:
      ValueError: it is not a whole number, or below 1.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not float(value).is_integer():
        raise ValueError(f"{name} must be a whole number; got {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1; got {value}")
    return int(value)
