"""Normalising flows as priors: invertible couplings over any other prior."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf
import tensorflow_probability as tfp
from tensorflow_probability import bijectors as tfb
from tensorflow_probability import distributions as tfd

from tfvamp.config import FLOW_TRANSFORMS
from tfvamp.layers.distribution_layer import TravellingDistribution
from tfvamp.layers.priors import PriorLayer, StandardNormalPriorLayer, at_least_one, width_of

LARGEST_LOG_SCALE = 2.0  # of one affine coupling
BINS, RANGE = 8, 6.0  # of a spline, on [-6, 6]; beyond, it is the identity
LEAST = 1e-3  # of a spline: smallest share of a bin in the range, and smallest slope
ARRAYS = 6  # per coupling's network: three kernels and three biases


class Kind(NamedTuple):
    """A description of how to read the arrays of a flow's networks.

    Attributes:
      transform: "affine" or "spline".
      dims: D.
    """

    transform: str
    dims: int

    @property
    def changed(self) -> int:
        """The number of latents, out of D, that one coupling changes."""
        return (self.dims + 1) // 2

    @property
    def outputs(self) -> int:
        """The number of outputs of its network for each of these latents."""
        return 2 if self.transform == "affine" else 3 * BINS - 1

    def first(self, index: int) -> int:
        """Returns the first of the latents that coupling number `index` changes; the others follow it cyclically.

        Two successive couplings change all latents; the next two split the latents elsewhere.
        """
        cut = math.floor(_halves(index // 2) * self.dims)
        return (cut + (index % 2) * (self.dims // 2)) % self.dims


def _halves(index: int) -> float:
    """Returns where the cycle of latents is cut, as a share in [0, 1/2): 0, 1/4, 1/8, 3/8, 1/16... (van der Corput)."""
    value, scale = 0.0, 0.25
    while index:
        value, index, scale = value + scale * (index % 2), index // 2, scale / 2
    return value


class FlowDistribution(TravellingDistribution, tfd.Distribution):
    """The distribution of z = f(e), with e from a base distribution and f an invertible function made of couplings.

    log p(z) = log p_base(f^-1(z)) + log |det df^-1 / dz|. A coupling keeps about half of the
    latents and changes each of the others by an increasing function, whose parameters a network
    computes from the latents that are kept. Its inverse and its determinant therefore cost one pass
    of the network: Dinh, Sohl-Dickstein and Bengio (2017), equations 4-8. The function is either
    affine, e = (z - t) exp(-s), or a rational-quadratic spline: Durkan, Bekasov, Murray and
    Papamakarios (2019), equations 4-8.

    Args:
      base: p(e), a distribution with event shape [D].
      arrays: kernels and biases of the networks, six arrays per coupling, in the order from z to e.
      kind: how the arrays are to be read.
      dtype: dtype of z and of log p(z); None for the base's.

    >>> flow = FlowPriorLayer(StandardNormalPriorLayer(latent_dims=4))()
    >>> e, log_det = flow.to_base(tf.zeros([3, 4]))
    >>> e.shape, log_det.shape
    (TensorShape([3, 4]), TensorShape([3]))
    """

    def __init__(
        self,
        base,
        arrays: Sequence[tf.Tensor],
        kind: Kind,
        dtype=None,
        validate_args=False,
        allow_nan_stats=True,
        name="FlowDistribution",
    ):
        parameters = dict(locals())
        _check_width(base.event_shape[0], kind.dims)
        self.base, self.arrays, self.kind = base, list(arrays), kind
        super().__init__(
            dtype=tf.as_dtype(dtype or base.dtype),
            reparameterization_type=tfd.NOT_REPARAMETERIZED,
            validate_args=validate_args,
            allow_nan_stats=allow_nan_stats,
            parameters=parameters,
            name=name,
        )

    def tensors(self):
        if not hasattr(self.base, "rebuilt"):
            raise TypeError(f"the base, a {type(self.base).__name__}, has no tensors() and rebuilt(tensors)")
        return *self.base.tensors(), *self.arrays

    def rebuilt(self, tensors):
        count = len(tensors) - len(self.arrays)
        return FlowDistribution(self.base.rebuilt(tensors[:count]), tensors[count:], self.kind, self.dtype)

    def to_base(self, z: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns f^-1(z) and log |det df^-1 / dz| for z [..., D]."""
        z = tf.convert_to_tensor(z)
        rows = tf.cast(tf.reshape(z, [-1, self.kind.dims]), self.arrays[0].dtype)
        log_det = tf.zeros([], rows.dtype)
        for index, network in enumerate(self._networks()):
            rows, more = _coupled(network, self.kind, index, rows, to_base=True)
            log_det = log_det + more
        log_det = tf.broadcast_to(log_det, tf.shape(rows)[:1])
        e, log_det = tf.reshape(rows, tf.shape(z)), tf.reshape(log_det, tf.shape(z)[:-1])
        e, log_det = tf.cast(e, self.dtype), tf.cast(log_det, self.dtype)
        return tf.ensure_shape(e, z.shape), tf.ensure_shape(log_det, z.shape[:-1])

    def from_base(self, e: tf.Tensor) -> tf.Tensor:
        """Returns f(e) for e [..., D]."""
        e = tf.convert_to_tensor(e)
        rows = tf.cast(tf.reshape(e, [-1, self.kind.dims]), self.arrays[0].dtype)
        for index, network in reversed(list(enumerate(self._networks()))):
            rows, _ = _coupled(network, self.kind, index, rows, to_base=False)
        return tf.ensure_shape(tf.cast(tf.reshape(rows, tf.shape(e)), self.dtype), e.shape)

    @property
    def num_components(self) -> Any:
        """K if the base is a mixture, which f turns into another mixture; None otherwise."""
        return getattr(self.base, "num_components", None)

    def component_log_prob(self, value) -> tf.Tensor:
        """Returns log w_k + log p_k(value), [..., K] for a value [..., D], in nats; the base must be a mixture."""
        e, log_det = self.to_base(value)
        of_base = self.base.component_log_prob(tf.cast(e, self.base.dtype))
        return tf.cast(of_base, self.dtype) + log_det[..., tf.newaxis]

    def sample_component(self, component: int | tf.Tensor, n: int | tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Returns n draws [n, D] from one component of the base, mapped by f."""
        return self.from_base(self.base.sample_component(component, n, seed))

    def _networks(self) -> list[list[tf.Tensor]]:
        return [self.arrays[first : first + ARRAYS] for first in range(0, len(self.arrays), ARRAYS)]

    @classmethod
    def _parameter_properties(cls, dtype, num_classes=None):
        return {}

    def _event_shape(self):
        return tf.TensorShape([self.kind.dims])

    def _event_shape_tensor(self):
        return tf.constant([self.kind.dims])

    def _batch_shape(self):
        return tf.TensorShape([])

    def _batch_shape_tensor(self):
        return tf.zeros([0], tf.int32)

    def _log_prob(self, value):
        e, log_det = self.to_base(value)
        return tf.cast(self.base.log_prob(tf.cast(e, self.base.dtype)), self.dtype) + log_det

    def _sample_n(self, n, seed):
        return self.from_base(self.base.sample(n, seed=tfp.random.sanitize_seed(seed)))


def _coupled(
    network: Sequence[tf.Tensor], kind: Kind, index: int, rows: tf.Tensor, to_base: bool
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns rows [N, D] after one coupling in either direction, and the log-determinant [N] towards the base."""
    first = kind.first(index)
    rolled = tf.concat([rows[:, first:], rows[:, :first]], axis=1)
    changed, kept = rolled[:, : kind.changed], rolled[:, kind.changed :]
    kernels, biases = network[0::2], network[1::2]
    if kind.dims > 1:
        hidden = tf.matmul(kept, kernels[0])
    else:  # a single latent: nothing is kept, and oneDNN ends the process at a product without inputs
        hidden = tf.reduce_sum(kept[:, :, tf.newaxis] * kernels[0], axis=1)
    hidden = tf.nn.silu(hidden + biases[0])
    hidden = tf.nn.silu(tf.matmul(hidden, kernels[1]) + biases[1])
    parameters = tf.matmul(hidden, kernels[2]) + biases[2]
    transform = _affine if kind.transform == "affine" else _spline
    changed, log_det = transform(changed, parameters, to_base)
    changed = tf.ensure_shape(changed, [None, kind.changed])  # a spline of one latent forgets it
    rolled = tf.concat([changed, kept], axis=1)
    back = kind.dims - first
    return tf.concat([rolled[:, back:], rolled[:, :back]], axis=1), tf.reduce_sum(log_det, axis=1)


def _affine(values: tf.Tensor, parameters: tf.Tensor, to_base: bool) -> tuple[tf.Tensor, tf.Tensor]:
    shift, log_scale = tf.split(parameters, 2, axis=1)
    log_scale = LARGEST_LOG_SCALE * tf.tanh(log_scale / LARGEST_LOG_SCALE)
    values = (values - shift) * tf.exp(-log_scale) if to_base else values * tf.exp(log_scale) + shift
    return values, -log_scale


def _spline(values: tf.Tensor, parameters: tf.Tensor, to_base: bool) -> tuple[tf.Tensor, tf.Tensor]:
    parameters = tf.reshape(parameters, [-1, values.shape[1], 3 * BINS - 1])
    widths, heights, slopes = tf.split(parameters, [BINS, BINS, BINS - 1], axis=2)
    spline = tfb.RationalQuadraticSpline(
        2.0 * RANGE * _shares(widths),
        2.0 * RANGE * _shares(heights),
        LEAST + (1.0 - LEAST) * tf.nn.softplus(slopes + math.log(math.e - 1.0)),  # 1 for 0
        range_min=-RANGE,
    )
    if not to_base:
        return spline.inverse(values), tf.zeros_like(values)
    return spline.forward(values), spline.forward_log_det_jacobian(values, event_ndims=0)


def _shares(logits: tf.Tensor) -> tf.Tensor:
    """Returns the widths of the bins, as shares of the whole, none of them near 0."""
    return LEAST + (1.0 - BINS * LEAST) * tf.nn.softmax(logits)


@keras.saving.register_keras_serializable(package="tfvamp")
class FlowPriorLayer(PriorLayer):
    """A prior over z = f(e), with a learned invertible f and e from any other prior; f starts as the identity.

    See `FlowDistribution` for the density. Over a `VampPriorLayer`, the prior starts as that
    VampPrior without the flow.

    Args:
      base: p(e), a prior layer, whose weights are trained too; None for a standard normal.
      latent_dims: D; None for the D of the base.
      num_couplings: number of couplings; two change all latents once.
      hidden_units: width of the two hidden layers of each coupling's network.
      transform: "affine" (RealNVP) or "spline" (rational-quadratic, 8 bins on [-6, 6]).

    Raises:
      ValueError: a number is below 1, the transform is unknown, or the base has another D.

    >>> prior = FlowPriorLayer(latent_dims=40)
    >>> prior.log_prob(prior.sample(3, seed=0)).shape
    TensorShape([3])
    """

    def __init__(
        self,
        base: PriorLayer | None = None,
        latent_dims: int | None = None,
        num_couplings: int = 6,
        hidden_units: int = 128,
        transform: str = "affine",
        **kwargs,
    ):
        super().__init__(**kwargs)
        if transform not in FLOW_TRANSFORMS:
            raise ValueError(f"transform must be one of {', '.join(FLOW_TRANSFORMS)}; got {transform!r}")
        if base is None:
            if latent_dims is None:
                raise ValueError("a flow needs a base, or latent_dims for a standard normal")
            base = StandardNormalPriorLayer(latent_dims, name="base", dtype=self.dtype_policy)
        if not isinstance(base, PriorLayer):
            raise TypeError(
                f"base must be a prior layer, such as VampPriorLayer(...); got {type(base).__name__}"
            )
        self.base, self.density, self.uses_indices = base, base.density, base.uses_indices
        self.latent_dims = at_least_one("latent_dims", width_of(base) if latent_dims is None else latent_dims)
        self.num_couplings = at_least_one("num_couplings", num_couplings)
        self.hidden_units = at_least_one("hidden_units", hidden_units)
        self.transform = transform
        _check_width(getattr(base, "latent_dims", None) or width_of(base), self.latent_dims)
        self._kind = kind = Kind(transform, self.latent_dims)
        widths = (kind.dims - kind.changed, self.hidden_units, self.hidden_units, kind.changed * kind.outputs)
        self._networks = []
        for coupling in range(self.num_couplings):
            for layer, shape in enumerate(itertools.pairwise(widths)):
                last = layer == len(widths) - 2
                kernel = self.add_weight(
                    name=f"coupling_{coupling}_kernel_{layer}",
                    shape=shape,
                    initializer="zeros" if last else "glorot_uniform",
                )
                bias = self.add_weight(
                    name=f"coupling_{coupling}_bias_{layer}", shape=shape[1:], initializer="zeros"
                )
                self._networks += [kernel, bias]
        self.built = True

    def _over(self, base) -> FlowDistribution:
        # Splines in float64: their slopes may reach 1e3, and a single inverse in float32 loses about 1e-3.
        dtype = tf.float64 if self.transform == "spline" else self.density_dtype
        arrays = [tf.cast(tf.convert_to_tensor(one), dtype) for one in self._networks]
        return FlowDistribution(base, arrays, self._kind, self.density_dtype)

    @property
    def num_components(self) -> int | None:
        """K if the base is a mixture; None otherwise."""
        return getattr(self.base, "num_components", None)

    def distribution(self) -> FlowDistribution:
        return self._over(self.base.distribution())

    def of_some(self, count: int, seed: tf.Tensor) -> FlowDistribution:
        return self._over(self.base.of_some(count, seed))

    def of_neighbours(self, count: int, indices: tf.Tensor) -> FlowDistribution:
        return self._over(self.base.of_neighbours(count, indices))

    def leaving_out(self, prior: FlowDistribution, indices: tf.Tensor) -> FlowDistribution:
        base = self.base.leaving_out(prior.base, indices)
        return FlowDistribution(base, prior.arrays, prior.kind, prior.dtype)

    def penalty(self) -> tf.Tensor | None:
        return self.base.penalty()

    def adapt(self, data, seed: int = 0) -> None:
        self.base.adapt(data, seed)

    def centres(self):
        of_base = self.base.centres()
        return None if of_base is None else self.distribution().from_base(of_base)

    def clipped_pseudo_inputs(self):
        return self.base.clipped_pseudo_inputs()

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "base": keras.saving.serialize_keras_object(self.base),
            "latent_dims": self.latent_dims,
            "num_couplings": self.num_couplings,
            "hidden_units": self.hidden_units,
            "transform": self.transform,
        }

    @classmethod
    def from_config(cls, config, encoder: keras.layers.Layer | None = None):
        """Returns the layer built from a config; `encoder` is that of its base, if it has one, as for `VampPriorLayer`."""
        base = config["base"]
        if encoder is None or not {"encoder", "base"} & base["config"].keys():
            base = keras.saving.deserialize_keras_object(base)
        else:
            kind = keras.saving.get_registered_object(base["registered_name"])
            base = kind.from_config(base["config"], encoder)
        return cls(**{**config, "base": base})


def _check_width(of_base: int, dims: int) -> None:
    if of_base != dims:
        raise ValueError(f"a flow of {dims} latents needs a base of as many; got one of {of_base}")
