"""Priors p(z) as Keras layers: standard normal, mixture of Gaussians, VampPrior.

One contract for all: `layer()` and `layer.distribution()` give the `tfd`, built from the
current weights each time; `layer(z)` and `layer.log_prob(z)` are log p(z); `sample`, `components`.
"""

from __future__ import annotations

import abc
import math
from typing import Any, NamedTuple

import keras
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfvamp import seeds
from tfvamp.layers import pseudo_inputs
from tfvamp.layers.gaussian import (
    LOG_VARIANCE_BOUNDS,
    DiagonalGaussian,
    as_diagonal_gaussian,
    at_least_float32,
)
from tfvamp.layers.mixture import DiagonalGaussianMixture


class PriorLayer(keras.layers.Layer, abc.ABC):
    """A prior over latents of D dimensions; subclasses say what the distribution is.

    Densities stay in float32 under mixed precision: z is not cast down. They are in float64 where the layer's
    weights are (`keras.config.set_floatx("float64")`).
    """

    def __init__(self, **kwargs):
        super().__init__(**{"autocast": False, **kwargs})

    @property
    def density_dtype(self) -> str:
        """In which log p(z) is computed: "float32" or "float64"."""
        return at_least_float32(self.variable_dtype)

    @abc.abstractmethod
    def distribution(self) -> tfd.Distribution:
        """p(z), event shape [D], from the current weights."""

    @abc.abstractmethod
    def components(self) -> DiagonalGaussian:
        """The K components, batch shape [K]; K = 1 for a prior that is no mixture."""

    def clipped_pseudo_inputs(self) -> Any:
        """The pseudo-inputs [K, *event] that the components are made from; None for a prior without any."""
        return None

    def of_some(self, count: int, seed: tf.Tensor) -> tfd.Distribution | SomeComponents:
        """Estimates p(z) from `count` of the K components, which the seed chooses; gives p(z) itself for a prior that is no mixture.

        Args:
          count: M, of components without repetition; all where there are no more.
          seed: [2], of the choice.
        """
        del count, seed
        return self.distribution()

    def call(self, z=None):
        """p(z) without an argument; with z [..., D], log p(z) [...] in nats."""
        if z is None:
            return self.distribution()
        prior = self.distribution()
        if z.shape.rank is None or z.shape[-1] not in (None, prior.event_shape[0]):
            raise ValueError(
                f"z must have shape [..., D] = [..., {prior.event_shape[0]}]; got {list(z.shape)}"
            )
        return prior.log_prob(tf.cast(z, prior.dtype))

    def compute_output_spec(self, z):
        """Keras asks this for symbolic inputs: log p(z) has the shape of z without D."""
        return keras.KerasTensor(tuple(z.shape[:-1]), dtype=self.density_dtype)

    def log_prob(self, z) -> tf.Tensor:
        """log p(z) [...] for z [..., D], in nats: the same as `layer(z)`."""
        return self(z)

    def sample(self, n: int, seed: seeds.Seed = None) -> tf.Tensor:
        """n draws [n, D].

        Args:
          n: how many.
          seed: an integer, a pair of integers or a tensor [2]: the same seed gives the same draws; a
            `keras.random.SeedGenerator`, which goes on with each call; or None for draws that follow
            `keras.utils.set_random_seed`.
        """
        return self.distribution().sample(n, seed=seeds.as_seed(seed))


class SomeComponents(NamedTuple):
    """An estimate of the density of a mixture from M of its K components, chosen uniformly without repetition.

    K/M times the sum over the chosen ones of w_k q_k(z) has the mean p(z). Its logarithm is too low on average (Jensen), by
    about its relative variance over two: the ELBO with it stays a lower bound.

    Attributes:
      mixture: of the chosen components, their weights normalised.
      log_scale: the logarithm of K/M times the sum of the chosen weights; 0 where all weights are equal.
    """

    mixture: DiagonalGaussianMixture
    log_scale: tf.Tensor

    def log_prob(self, z) -> tf.Tensor:
        """The logarithm of the estimate [...] at z [..., D], in nats."""
        return self.mixture.log_prob(z) + self.log_scale


def _chosen(count: int, total: int, seed: tf.Tensor) -> tf.Tensor:
    """M of K indices, uniformly without repetition."""
    return tf.math.top_k(seeds.uniform([total], seed, tf.float64), count).indices


@keras.saving.register_keras_serializable(package="tfvamp")
class StandardNormalPriorLayer(PriorLayer):
    """p(z) = N(0, I).

    Args:
      latent_dims: D.
    """

    def __init__(self, latent_dims: int, **kwargs):
        super().__init__(**kwargs)
        self.latent_dims = _at_least_one("latent_dims", latent_dims)

    def distribution(self) -> DiagonalGaussian:
        zeros = tf.zeros([self.latent_dims], self.density_dtype)
        return DiagonalGaussian(zeros, zeros)

    def components(self) -> DiagonalGaussian:
        zeros = tf.zeros([1, self.latent_dims], self.density_dtype)
        return DiagonalGaussian(zeros, zeros)

    def get_config(self):
        return {**super().get_config(), "latent_dims": self.latent_dims}


@keras.saving.register_keras_serializable(package="tfvamp")
class MixtureOfGaussiansPriorLayer(PriorLayer):
    """p(z) = 1/K sum_k N(z; loc_k, diag(exp(log_variance_k))), all free parameters.

    The paper gives no initial values; ours are loc ~ N(0, 1) and log_variance = 0, so that
    the prior starts near N(0, 2 I) with distinct components. The log-variance is clipped to
    [-6, 2] as the posterior's is.

    Args:
      num_components: K.
      latent_dims: D.
    """

    def __init__(self, num_components: int, latent_dims: int, **kwargs):
        super().__init__(**kwargs)
        self.num_components = _at_least_one("num_components", num_components)
        self.latent_dims = _at_least_one("latent_dims", latent_dims)
        shape = (self.num_components, self.latent_dims)
        self.loc = self.add_weight(
            name="loc", shape=shape, initializer=keras.initializers.RandomNormal(stddev=1.0)
        )
        self.log_variance = self.add_weight(name="log_variance", shape=shape, initializer="zeros")
        self.built = True

    def distribution(self) -> DiagonalGaussianMixture:
        return _mixture(tf.zeros([self.num_components], self.density_dtype), self.components())

    def components(self) -> DiagonalGaussian:
        return self._components(tf.convert_to_tensor(self.loc), tf.convert_to_tensor(self.log_variance))

    def _components(self, loc: tf.Tensor, log_variance: tf.Tensor) -> DiagonalGaussian:
        log_variance = tf.cast(log_variance, self.density_dtype)
        loc = tf.cast(loc, self.density_dtype)
        return DiagonalGaussian(loc, tf.clip_by_value(log_variance, *LOG_VARIANCE_BOUNDS))

    def of_some(self, count: int, seed: tf.Tensor) -> tfd.Distribution | SomeComponents:
        if count >= self.num_components:
            return self.distribution()
        chosen = _chosen(count, self.num_components, seed)
        components = self._components(tf.gather(self.loc, chosen), tf.gather(self.log_variance, chosen))
        zeros = tf.zeros([count], self.density_dtype)
        return SomeComponents(_mixture(zeros, components), tf.zeros([], self.density_dtype))

    def get_config(self):
        config = {"num_components": self.num_components, "latent_dims": self.latent_dims}
        return {**super().get_config(), **config}


@keras.saving.register_keras_serializable(package="tfvamp")
class VampPriorLayer(PriorLayer):
    """p(z) = sum_k w_k q(z | u_k): Tomczak and Welling (2018), equation 9 (w_k = 1/K) or 16.

    The components are the encoder's posteriors at K learned pseudo-inputs u_k. The encoder
    is shared with the model, not copied: its weights get gradients from the prior too. It is
    called on the pseudo-inputs with `training=False`, so that dropout and batch statistics
    act on data alone.

    Args:
      encoder: a Keras layer or model from inputs [B, *event], a list or a dictionary of them, to a diagonal normal
        over [D]: see `as_diagonal_gaussian` for what it may return.
      num_components: K.
      event_shape: shape of one input; for several a list or a dictionary of shapes, as the encoder takes its inputs;
        None takes it from a built encoder.
      initial: initial pseudo-inputs: an array [K, *event], what a Keras initializer may be (an instance, a name, a
        function), a number, or None for the middle of the bounds with a standard deviation of a 50th of their width,
        N(0.5, 0.02^2) for pixels. To start at data, see `adapt`.
      bounds: pseudo-inputs pass through a clip to these bounds, without gradient outside; None where the data are not
        bounded; "softmax" for probabilities along the last axis, such as one-hot labels.
      weighted: learn the weights w_k, a softmax of K logits.
      trainable: False fixes pseudo-inputs and weights ("VampPrior data" with images as
        `initial`); the encoder keeps learning all the same.

    For an encoder of several inputs, `initial`, `bounds` and `trainable` are either one for all inputs or have their
    structure: `bounds={"image": (0, 1), "label": "softmax"}` learns pseudo-labels, and
    `trainable={"image": True, "label": False}` fixes them at their initial values.

    Attributes:
      event_shape: a tuple, or a list or a dictionary of tuples.
      bounds: likewise.
      pseudo_inputs: the weights [K, *event], likewise.

    Raises:
      ValueError: `event_shape` is neither given nor known to the encoder; or `initial` has another shape, lies outside
        `bounds`, where it would get no gradient, or is not finite; or an input to be learned has no gradient (integers).

    >>> encoder = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4)])  # 2 means, 2 log-variances
    >>> prior = VampPriorLayer(encoder, num_components=500)
    >>> prior.log_prob(prior.sample(3, seed=0)).shape
    TensorShape([3])
    """

    def __init__(
        self,
        encoder: keras.layers.Layer,
        num_components: int,
        event_shape=None,
        initial=None,
        bounds=(0.0, 1.0),
        weighted: bool = False,
        trainable: bool | list | dict = True,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.encoder = encoder
        self.num_components = _at_least_one("num_components", num_components)
        self.weighted = bool(weighted)
        self._parts = pseudo_inputs.describe(encoder, event_shape, bounds, trainable)
        pseudo_inputs.check_gradients(encoder, self._parts)
        initials = pseudo_inputs.spread("initial", initial, self._parts, pseudo_inputs.is_initial)
        weights = {}
        for key, part in self._parts.items():
            weights[key] = self.add_weight(
                name="pseudo_inputs" if key is None else f"pseudo_inputs_{key}",
                shape=(self.num_components, *part.shape),
                dtype=part.dtype,
                initializer=part.initializer(initials[key], self.num_components),
                trainable=part.trainable,
            )
        self.pseudo_inputs = pseudo_inputs.structure_of(weights)
        if self.weighted:
            self.logits = self.add_weight(
                name="logits",
                shape=(self.num_components,),
                initializer="zeros",
                trainable=any(part.trainable for part in self._parts.values()),
            )
        self.built = True

    @property
    def event_shape(self):
        return self._of_parts("shape")

    @property
    def bounds(self):
        return self._of_parts("bounds")

    def _of_parts(self, attribute: str):
        return pseudo_inputs.structure_of(
            {key: getattr(part, attribute) for key, part in self._parts.items()}
        )

    def _weights(self) -> dict:
        return dict(pseudo_inputs.leaves(self.pseudo_inputs, lambda leaf: not isinstance(leaf, (list, dict))))

    def adapt(self, data, seed: int = 0) -> None:
        """Starts the pseudo-inputs at K random data points, and takes bounds from the range of the data.

        As for `keras.layers.Normalization`, call it before the model is compiled. Bounds that are None or "softmax"
        stay so.

        Args:
          data: what `fit` takes: arrays [N, *event], with the structure of the encoder's inputs, or batches of them (a
            `tf.data.Dataset`, with targets or without, that ends).
          seed: of the choice.

        Raises:
          ValueError: there are fewer than K data points, their shape is not the encoder's, or they are not finite.
        """
        drawn, ranges = pseudo_inputs.draw(data, self.num_components, self._parts, seed)
        for key, weight in self._weights().items():
            part, (low, high) = self._parts[key], ranges[key]
            if isinstance(part.bounds, tuple):
                if low == high:
                    raise ValueError(
                        f"all values of the data are {low:.6g}: {part.name} would have no bounds"
                    )
                part.bounds = (low, high)
            weight.assign(part.weights_of(drawn[key]))

    def clipped_pseudo_inputs(self):
        """The pseudo-inputs as the encoder sees them, [K, *event]; a list or a dictionary for several inputs."""
        weights = self._weights()
        return pseudo_inputs.structure_of({key: part.seen(weights[key]) for key, part in self._parts.items()})

    def components(self) -> DiagonalGaussian:
        return self._encoded(self.clipped_pseudo_inputs(), self.num_components)

    def _encoded(self, inputs, count: int) -> DiagonalGaussian:
        posterior = as_diagonal_gaussian(self.encoder(inputs, training=False))
        if posterior.batch_shape.rank != 1:
            raise TypeError(
                f"the encoder must return a batch of [K] = [{count}] posteriors at the pseudo-inputs; got batch shape "
                f"{list(posterior.batch_shape)}"
            )
        return posterior

    def of_some(self, count: int, seed: tf.Tensor) -> tfd.Distribution | SomeComponents:
        if count >= self.num_components:
            return self.distribution()
        chosen, weights = _chosen(count, self.num_components, seed), self._weights()
        inputs = {key: part.seen(tf.gather(weights[key], chosen)) for key, part in self._parts.items()}
        components = self._encoded(pseudo_inputs.structure_of(inputs), count)
        if not self.weighted:
            zeros = tf.zeros([count], components.dtype)
            return SomeComponents(_mixture(zeros, components), tf.zeros([], components.dtype))
        log_weights = tf.gather(tf.nn.log_softmax(tf.cast(self.logits, components.dtype)), chosen)
        scale = math.log(self.num_components / count) + tf.reduce_logsumexp(log_weights)
        return SomeComponents(_mixture(log_weights, components), scale)

    def distribution(self) -> DiagonalGaussianMixture:
        components = self.components()
        zeros = tf.zeros([self.num_components], components.dtype)
        return _mixture(tf.cast(self.logits, components.dtype) if self.weighted else zeros, components)

    def get_config(self):
        return {
            **super().get_config(),
            "encoder": keras.saving.serialize_keras_object(self.encoder),
            "num_components": self.num_components,
            "event_shape": self.event_shape,
            "bounds": self.bounds,
            "weighted": self.weighted,
            "trainable": self._of_parts("trainable"),
        }

    @classmethod
    def from_config(cls, config, encoder: keras.layers.Layer | None = None):
        """The layer of a config; its encoder is `encoder`, or the one that a `.keras` file shares.

        Raises:
          ValueError: there is neither, as in `keras.models.clone_model`: the prior would get an encoder of its
            own, no longer tied to the model's.
        """
        config = dict(config)
        serialized = config.pop("encoder")
        if encoder is None and not _objects_are_shared():
            raise ValueError(
                "a VampPriorLayer shares its encoder with the model, and a config alone (clone_model, "
                "from_config) would give it a copy: clone the whole model with tfvamp.clone_model(model), or "
                "say which encoder it shares: VampPriorLayer.from_config(config, encoder=encoder)"
            )
        return cls(encoder=encoder or keras.saving.deserialize_keras_object(serialized), **config)


def _objects_are_shared() -> bool:
    """Whether Keras is reading a `.keras` file, in which objects that occur twice are one.

    Keras 3.15 has no public way to ask; should its inside change, copies go unnoticed again.
    """
    try:
        from keras.src.backend.common import global_state
    except ImportError:
        return True
    return global_state.get_global_attribute("shared_objects/id_to_obj_map") is not None


def _mixture(logits: tf.Tensor, components: DiagonalGaussian) -> DiagonalGaussianMixture:
    return DiagonalGaussianMixture(tfd.Categorical(logits=logits), components)


def _at_least_one(name: str, value: int) -> int:
    if value < 1:
        raise ValueError(f"{name} must be at least 1; got {value}")
    return int(value)
