"""Priors p(z) as Keras layers: standard normal, mixture of Gaussians, VampPrior.

One contract for all: `layer()` and `layer.distribution()` give the `tfd`, built from the
current weights each time; `layer(z)` is log p(z); `sample`, `components`.
"""

from __future__ import annotations

import abc

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfvamp import seeds
from tfvamp.layers.gaussian import LOG_VARIANCE_BOUNDS, DiagonalGaussian, as_diagonal_gaussian
from tfvamp.layers.mixture import DiagonalGaussianMixture


class PriorLayer(keras.layers.Layer, abc.ABC):
    """A prior over latents of D dimensions; subclasses say what the distribution is.

    Densities stay in float32 under mixed precision: z is not cast down.
    """

    def __init__(self, **kwargs):
        super().__init__(**{"autocast": False, **kwargs})

    @abc.abstractmethod
    def distribution(self) -> tfd.Distribution:
        """p(z), event shape [D], from the current weights."""

    @abc.abstractmethod
    def components(self) -> DiagonalGaussian:
        """The K components, batch shape [K]; K = 1 for a prior that is no mixture."""

    def clipped_pseudo_inputs(self) -> tf.Tensor | None:
        """The pseudo-inputs [K, *event] that the components are made from; None for a prior without any."""
        return None

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
        return keras.KerasTensor(tuple(z.shape[:-1]), dtype="float32")

    def sample(self, n: int, seed: int | tf.Tensor) -> tf.Tensor:
        """n draws [n, D]; the same seed gives the same draws."""
        return self.distribution().sample(n, seed=seeds.as_seed(seed))


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
        return DiagonalGaussian(tf.zeros([self.latent_dims]), tf.zeros([self.latent_dims]))

    def components(self) -> DiagonalGaussian:
        return DiagonalGaussian(tf.zeros([1, self.latent_dims]), tf.zeros([1, self.latent_dims]))

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
        return _mixture(tf.zeros([self.num_components]), self.components())

    def components(self) -> DiagonalGaussian:
        loc = tf.cast(self.loc, tf.float32)
        log_variance = tf.cast(self.log_variance, tf.float32)
        return DiagonalGaussian(loc, tf.clip_by_value(log_variance, *LOG_VARIANCE_BOUNDS))

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
      encoder: a Keras layer or model from inputs [B, *event] to a diagonal normal over [D]:
        a `tfd.Distribution` or a pair (mean, log-variance).
      num_components: K.
      event_shape: shape of one input; None takes it from a built encoder.
      initial: initial pseudo-inputs: an array [K, *event], a Keras initializer, or None for
        N(0.5, 0.02^2).
      bounds: pseudo-inputs pass through a clip to these bounds, without gradient outside;
        None where the data are not bounded.
      weighted: learn the weights w_k, a softmax of K logits.
      trainable: False fixes pseudo-inputs and weights ("VampPrior data" with images as
        `initial`); the encoder keeps learning all the same.

    Raises:
      ValueError: `event_shape` is neither given nor known to the encoder, or `initial` has
        another shape.

    >>> prior = VampPriorLayer(encoder, num_components=500)  # doctest: +SKIP
    >>> log_prob = prior(z)  # doctest: +SKIP
    """

    def __init__(
        self,
        encoder: keras.layers.Layer,
        num_components: int,
        event_shape: tuple[int, ...] | None = None,
        initial: np.ndarray | keras.initializers.Initializer | None = None,
        bounds: tuple[float, float] | None = (0.0, 1.0),
        weighted: bool = False,
        trainable: bool = True,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.encoder = encoder
        self.num_components = _at_least_one("num_components", num_components)
        self.event_shape = _event_shape(encoder, event_shape)
        self.bounds = None if bounds is None else _bounds(bounds)
        self.weighted = bool(weighted)
        self.learn_pseudo_inputs = bool(trainable)
        shape = (self.num_components, *self.event_shape)
        self.pseudo_inputs = self.add_weight(
            name="pseudo_inputs",
            shape=shape,
            initializer=_pseudo_input_initializer(initial, shape),
            trainable=self.learn_pseudo_inputs,
        )
        if self.weighted:
            self.logits = self.add_weight(
                name="logits", shape=shape[:1], initializer="zeros", trainable=self.learn_pseudo_inputs
            )
        self.built = True

    def clipped_pseudo_inputs(self) -> tf.Tensor:
        """The pseudo-inputs as the encoder sees them, [K, *event]."""
        pseudo_inputs = tf.convert_to_tensor(self.pseudo_inputs)
        return pseudo_inputs if self.bounds is None else tf.clip_by_value(pseudo_inputs, *self.bounds)

    def components(self) -> DiagonalGaussian:
        posterior = as_diagonal_gaussian(self.encoder(self.clipped_pseudo_inputs(), training=False))
        if posterior.batch_shape.rank != 1:
            raise TypeError(
                f"the encoder must return a batch of [K] = [{self.num_components}] posteriors at the "
                f"pseudo-inputs; got batch shape {list(posterior.batch_shape)}"
            )
        return posterior

    def distribution(self) -> DiagonalGaussianMixture:
        logits = tf.cast(self.logits, tf.float32) if self.weighted else tf.zeros([self.num_components])
        return _mixture(logits, self.components())

    def get_config(self):
        return {
            **super().get_config(),
            "encoder": keras.saving.serialize_keras_object(self.encoder),
            "num_components": self.num_components,
            "event_shape": self.event_shape,
            "bounds": self.bounds,
            "weighted": self.weighted,
            "trainable": self.learn_pseudo_inputs,
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


def _bounds(bounds: tuple[float, float]) -> tuple[float, float]:
    low, high = (float(bound) for bound in bounds)
    if not low < high:
        raise ValueError(f"bounds must be (low, high) with low < high, or None; got {bounds}")
    return low, high


def _event_shape(encoder: keras.layers.Layer, event_shape: tuple[int, ...] | None) -> tuple[int, ...]:
    """The shape of one input, given or read off a built encoder."""
    known = (encoder.get_build_config() or {}).get("input_shape") if encoder.built else None
    known = getattr(encoder, "input_shape", known)
    if event_shape is None:
        if not isinstance(known, tuple) or None in known[1:]:
            raise ValueError(
                "the encoder does not tell the shape of its inputs yet: pass event_shape, such as "
                "event_shape=(28, 28, 1), or call the encoder once on a batch before"
            )
        event_shape = known[1:]
    event_shape = tuple(int(size) for size in event_shape)
    if isinstance(known, tuple) and None not in known[1:] and tuple(known[1:]) != event_shape:
        raise ValueError(
            f"event_shape must be the encoder's input shape {list(known[1:])}; got {list(event_shape)}"
        )
    return event_shape


def _pseudo_input_initializer(initial, shape: tuple[int, ...]) -> keras.initializers.Initializer:
    if initial is None:
        return keras.initializers.RandomNormal(mean=0.5, stddev=0.02)
    if isinstance(initial, keras.initializers.Initializer):
        return initial
    initial = np.asarray(initial)
    if initial.shape != shape:
        raise ValueError(
            f"initial pseudo-inputs must have shape [K, *event] = {list(shape)}; got {list(initial.shape)}"
        )
    return lambda shape, dtype=None: tf.constant(initial, dtype)
