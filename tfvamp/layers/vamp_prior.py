"""The VampPrior, a mixture of the encoder's posteriors at learned pseudo-inputs, and the VampPrior mixture model."""

from __future__ import annotations

import math

import keras
import tensorflow as tf

from tfvamp.layers import pseudo_inputs
from tfvamp.layers.gaussian import DiagonalGaussian, as_diagonal_gaussian
from tfvamp.layers.mixture import DiagonalGaussianMixture
from tfvamp.layers.priors import MixturePriorLayer, SomeComponents, at_least_one, choose, mixture_of
from tfvamp.layers.shared_encoder import is_placeholder

OWN_LOG_VARIANCE = (-10.0, 4.0)  # bounds of log s_k of `VampMixturePriorLayer`


@keras.saving.register_keras_serializable(package="tfvamp")
class VampPriorLayer(MixturePriorLayer):
    """The VampPrior, p(z) = sum_k w_k q(z | u_k): Tomczak and Welling (2018), equation 9 (w_k = 1/K) or 16.

    The components are the encoder's posteriors at K learned pseudo-inputs u_k. The encoder
    is shared with the model, not copied: its weights get gradients from the prior too. It is
    called on the pseudo-inputs with `training=False`, so that dropout and batch statistics
    apply only to data.

    Args:
      encoder: a Keras layer or model. It maps inputs [B, *event], or a list or a dictionary of
        them, to a diagonal normal over [D]; see `as_diagonal_gaussian` for what it may return.
      num_components: K, number of pseudo-inputs.
      event_shape: shape of one input; for several inputs, a list or a dictionary of shapes, as the
        encoder takes its inputs. None takes it from a built encoder.
      initial: initial pseudo-inputs: an array [K, *event], anything that a Keras initializer may be
        (an instance, a name, a function), or a number. None draws them from a normal at the middle
        of the bounds, with a standard deviation of a 50th of their width: N(0.5, 0.02^2) for
        pixels. To start from data, see `adapt`.
      bounds: (low, high), to which pseudo-inputs are clipped, without a gradient outside; None if
        the data are not bounded; "softmax" for probabilities along the last axis, such as one-hot
        labels.
      weighted: whether to learn the weights w_k, a softmax of K logits.
      trainable: False fixes the pseudo-inputs and weights ("VampPrior data", if `initial` is
        images); the encoder is still trained.

    For an encoder of several inputs, `initial`, `bounds` and `trainable` are either one value for
    all inputs, or have the structure of the inputs: `bounds={"image": (0, 1), "label": "softmax"}`
    learns pseudo-labels, and `trainable={"image": True, "label": False}` fixes them at their
    initial values.

    Attributes:
      event_shape: a tuple, or a list or a dictionary of tuples.
      bounds: the bounds, with the same structure.
      pseudo_inputs: the weights [K, *event], with the same structure.

    Raises:
      ValueError: `event_shape` is not given and the encoder does not know it; `initial` has another
        shape, is not finite, or lies outside `bounds`, where it would get no gradient; or an input
        to be learned has no gradient (integers).

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
        if not callable(encoder):
            raise TypeError(f"encoder must be a Keras layer or model; got {type(encoder).__name__}")
        self.encoder = encoder
        self.num_components = at_least_one("num_components", num_components)
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
        """Initialises the pseudo-inputs with K random data points, and sets the bounds to the range of the data.

        As with `keras.layers.Normalization`, call it before the model is compiled. Bounds of None
        or "softmax" are kept.

        Args:
          data: anything that `fit` takes: arrays [N, *event], with the structure of the encoder's
            inputs, or batches of them (a finite `tf.data.Dataset`, with or without targets).
          seed: seed of the choice.

        Raises:
          ValueError: there are fewer than K data points, their shape is not the encoder's, they are
            not finite, or all their values are equal.
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
        """Returns the pseudo-inputs as the encoder sees them, [K, *event]; a list or a dictionary for several inputs."""
        weights = self._weights()
        return pseudo_inputs.structure_of({key: part.seen(weights[key]) for key, part in self._parts.items()})

    def components(self) -> DiagonalGaussian:
        return self._component_of(self._encoded(self.clipped_pseudo_inputs(), self.num_components))

    def _component_of(self, posterior: DiagonalGaussian, chosen: tf.Tensor | None = None) -> DiagonalGaussian:
        """Returns the components made from posteriors at pseudo-inputs, either all of them or those `chosen`."""
        del chosen
        return posterior

    def _encoded(self, inputs, count: int) -> DiagonalGaussian:
        posterior = as_diagonal_gaussian(self.encoder(inputs, training=False))
        if posterior.batch_shape.rank != 1:
            raise TypeError(
                f"the encoder must return a batch of [K] = [{count}] posteriors at the pseudo-inputs; got batch shape "
                f"{list(posterior.batch_shape)}"
            )
        return posterior

    def of_some(self, count: int, seed: tf.Tensor) -> DiagonalGaussianMixture | SomeComponents:
        if count >= self.num_components:
            return self.distribution()
        chosen, weights = choose(count, self.num_components, seed), self._weights()
        inputs = {key: part.seen(tf.gather(weights[key], chosen)) for key, part in self._parts.items()}
        posterior = self._encoded(pseudo_inputs.structure_of(inputs), count)
        components = self._component_of(posterior, chosen)
        if not self.weighted:
            zeros = tf.zeros([count], components.dtype)
            return SomeComponents(mixture_of(zeros, components), tf.zeros([], components.dtype), chosen)
        log_weights = tf.gather(tf.nn.log_softmax(tf.cast(self.logits, components.dtype)), chosen)
        scale = math.log(self.num_components / count) + tf.reduce_logsumexp(log_weights)
        return SomeComponents(mixture_of(log_weights, components), scale, chosen)

    def log_weights(self, components: DiagonalGaussian) -> tf.Tensor:
        return tf.cast(self.logits, components.dtype) if self.weighted else super().log_weights(components)

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
        """Returns the layer built from a config; its encoder is `encoder`, or the one that a `.keras` file shares.

        Raises:
          ValueError: there is neither, as in `keras.models.clone_model`. The prior would get an
            encoder of its own, no longer tied to the model's.
        """
        config = dict(config)
        serialized = config.pop("encoder")
        if encoder is None and not is_placeholder(serialized) and not _objects_are_shared():
            raise ValueError(
                f"a {cls.__name__} shares its encoder with the model, and a config alone (clone_model, "
                "from_config) would give it a copy: clone the whole model with tfvamp.clone_model(model), or "
                f"say which encoder it shares: {cls.__name__}.from_config(config, encoder=encoder)"
            )
        return cls(encoder=encoder or keras.saving.deserialize_keras_object(serialized), **config)


@keras.saving.register_keras_serializable(package="tfvamp")
class VampMixturePriorLayer(VampPriorLayer):
    """The VampPrior mixture model, p(z) = sum_k w_k N(z; m(u_k), v(u_k) + s_k): Stirn and Knowles (2024).

    q(z | u_k) = N(m(u_k), v(u_k)) is taken as the posterior of a cluster's centre. Latents spread
    around that centre with the cluster's own variances s_k [D]. A component can therefore be much
    wider than the posterior of one image, so that a small number of components can be clusters. The
    weights w_k, pseudo-inputs u_k and variances s_k are learned together with the networks, by the
    same optimiser; the paper alternates between them.

    Args:
      encoder, num_components, event_shape, initial, bounds, trainable: as for `VampPriorLayer`.
      latent_dims: D; None takes it from the encoder.
      initial_variance: initial value of s_k.

    >>> encoder = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4)])
    >>> prior = VampMixturePriorLayer(encoder, num_components=10)
    >>> prior.responsibilities(prior.sample(3, seed=0)).shape
    TensorShape([3, 10])
    """

    def __init__(
        self,
        encoder: keras.layers.Layer,
        num_components: int,
        event_shape=None,
        initial=None,
        bounds=(0.0, 1.0),
        trainable: bool | list | dict = True,
        latent_dims: int | None = None,
        initial_variance: float = 1.0,
        **kwargs,
    ):
        super().__init__(encoder, num_components, event_shape, initial, bounds, True, trainable, **kwargs)
        low, high = (math.exp(bound) for bound in OWN_LOG_VARIANCE)
        if not low < initial_variance < high:  # outside it would get no gradient
            raise ValueError(
                f"initial_variance must lie between {low:.2g} and {high:.3g}; got {initial_variance}"
            )
        self.initial_variance = float(initial_variance)
        self.latent_dims = at_least_one(
            "latent_dims", self._encoded_dims() if latent_dims is None else latent_dims
        )
        self.log_variance = self.add_weight(
            name="log_variance",
            shape=(self.num_components, self.latent_dims),
            initializer=keras.initializers.Constant(math.log(self.initial_variance)),
            trainable=any(part.trainable for part in self._parts.values()),
        )

    def _encoded_dims(self) -> int:
        found: list[int] = []

        def trace():
            posterior = self._encoded(self.clipped_pseudo_inputs(), self.num_components)
            found.append(posterior.event_shape[0])

        tf.function(trace, autograph=False).get_concrete_function()
        return found[0]

    def _component_of(self, posterior: DiagonalGaussian, chosen: tf.Tensor | None = None) -> DiagonalGaussian:
        own = (
            tf.convert_to_tensor(self.log_variance)
            if chosen is None
            else tf.gather(self.log_variance, chosen)
        )
        own = tf.clip_by_value(tf.cast(own, posterior.dtype), *OWN_LOG_VARIANCE)
        return DiagonalGaussian(posterior.loc, tf.math.softplus(posterior.log_variance - own) + own)

    def get_config(self):
        config = super().get_config()
        del config["weighted"]
        return {**config, "latent_dims": self.latent_dims, "initial_variance": self.initial_variance}


def _objects_are_shared() -> bool:
    """Returns whether Keras is reading a `.keras` file, in which objects that occur more than once are shared.

    Keras 3.15 has no public way to ask. If its internals change, copies go unnoticed again.
    """
    try:
        from keras.src.backend.common import global_state
    except ImportError:
        return True
    return global_state.get_global_attribute("shared_objects/id_to_obj_map") is not None
