"""Pseudo-inputs of an encoder of one input, or of a list or a dictionary of them: shapes, bounds, initial values.

A structure is one leaf, a list of leaves or a dictionary of leaves. Event shapes, bounds, initial
values and data have the same structure as the encoder's inputs.
"""

from __future__ import annotations

import dataclasses
import numbers
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from tfvamp.layers.distribution_layer import DistributionLayer
from tfvamp.layers.gaussian import as_diagonal_gaussian

SOFTMAX = "softmax"
LOADED_LATER = keras.initializers.Zeros()  # initial values that weights will replace: they are not checked
SPREAD = 0.02  # standard deviation of the default initial values, relative to the width of the bounds
SMALLEST_PROBABILITY = 1e-3  # of data from which pseudo-inputs start under a softmax

Shape: TypeAlias = tuple[int, ...]
Bounds: TypeAlias = tuple[float, float] | str | None


@dataclasses.dataclass
class PseudoInput:
    """The pseudo-inputs of one input of the encoder.

    Attributes:
      name: name of the weight, also used in messages.
      shape: shape of one input, without K.
      dtype: None for the layer's own dtype; integer inputs have theirs.
      bounds: (low, high) of a clip, "softmax" over the last axis, or None.
      trainable: whether they are learned.
    """

    name: str
    shape: Shape
    dtype: str | None
    bounds: Bounds
    trainable: bool

    def seen(self, values) -> tf.Tensor:
        """Returns what the encoder sees, given the weights [K, *event]."""
        values = tf.convert_to_tensor(values)
        if self.bounds is None:
            return values
        if self.bounds == SOFTMAX:
            return tf.nn.softmax(values)
        return tf.clip_by_value(values, *self.bounds)

    def weights_of(self, data: np.ndarray) -> np.ndarray:
        """Returns the weights for which `seen` gives the data [K, *event].

        Under a softmax this holds approximately, because no weight may be infinite.
        """
        if self.bounds == SOFTMAX:
            return np.log(np.maximum(data, SMALLEST_PROBABILITY))
        return data

    def initializer(self, initial, num_components: int) -> Callable:
        """Returns a Keras initializer for a caller's `initial`; it checks its values, unless they are the default's.

        Raises:
          ValueError: `initial` is neither a Keras initializer nor an array [K, *event]. When the
            returned initializer is called, it raises the errors of `check`.
        """
        if initial is None:
            if self.bounds == SOFTMAX:
                return keras.initializers.RandomNormal(mean=0.0, stddev=1.0)
            low, high = self.bounds if isinstance(self.bounds, tuple) else (0.0, 1.0)
            return keras.initializers.RandomNormal(mean=(low + high) / 2, stddev=SPREAD * (high - low))
        if initial is LOADED_LATER:
            return initial
        initialize = self._initializer(initial, num_components)

        def looked_at(shape, dtype=None):
            values = initialize(shape, dtype=dtype)
            if not tf.is_symbolic_tensor(values):
                self.check(np.asarray(values))
            return values

        return looked_at

    def _initializer(self, initial, num_components: int) -> Callable:
        if isinstance(initial, numbers.Number):
            return keras.initializers.Constant(initial)
        if isinstance(initial, (str, dict)) or callable(initial):
            return keras.initializers.get(initial)
        values, shape = np.asarray(initial), (num_components, *self.shape)
        if values.shape != shape:
            raise ValueError(
                f"initial {self.name} must have shape [K, *event] = {list(shape)}; got {list(values.shape)}"
            )
        return lambda shape, dtype=None: tf.cast(values, dtype or tf.float32)

    def check(self, values: np.ndarray) -> None:
        """Checks initial weights [K, *event].

        Raises:
          ValueError: some lie outside the bounds or are not finite. A clip gives them no gradient,
            so that they would never be learned.
        """
        if not np.isfinite(values).all():
            raise ValueError(f"initial {self.name} must be finite; got NaN or infinite values")
        if isinstance(self.bounds, tuple):
            outside = np.mean((values < self.bounds[0]) | (values > self.bounds[1]))
            if outside:
                raise ValueError(
                    f"initial {self.name} must lie within bounds={self.bounds}, outside which they would get no "
                    f"gradient; got values from {values.min():.4g} to {values.max():.4g}, {100 * outside:.3g} % of "
                    "them outside. Pass the bounds of your data, or bounds=None for data without bounds"
                )
        if self.trainable and len(values) > 1 and np.all(values == values[:1]):
            warnings.warn(
                f"all initial {self.name} are equal: their gradients are, too, so that the {len(values)} components "
                "stay one. Start them at data (adapt) or at random",
                stacklevel=4,
            )


# --- structures ---


def leaves(structure, is_leaf: Callable[[Any], bool]) -> dict[Any, Any]:
    """Returns the leaves by key: None for a single leaf, an index in a list, a name in a dictionary.

    Raises:
      ValueError: there is something else in place of a leaf.
    """
    if is_leaf(structure):
        return {None: structure}
    items = dict(structure) if isinstance(structure, Mapping) else None
    if items is None and isinstance(structure, (list, tuple)):
        items = dict(enumerate(structure))
    if not items or not all(is_leaf(leaf) for leaf in items.values()):
        raise ValueError(f"expected one item, a list or a dictionary of them; got {structure}")
    return items


def structure_of(by_key: Mapping[Any, Any]):
    """Returns one leaf, a list or a dictionary, from the result of `leaves`."""
    keys = list(by_key)
    if keys == [None]:
        return by_key[None]
    return dict(by_key) if isinstance(keys[0], str) else list(by_key.values())


def spread(name: str, argument, keys: Iterable[Any], is_leaf: Callable[[Any], bool]) -> dict[Any, Any]:
    """Returns an argument for each of the keys: its own leaf, or the same leaf for all.

    Raises:
      ValueError: the argument has another structure.
    """
    keys = list(keys)
    if keys == [None] or is_leaf(argument):
        return dict.fromkeys(keys, argument)
    if isinstance(argument, Mapping):
        given = dict(argument)
    else:
        given = dict(enumerate(argument)) if isinstance(argument, (list, tuple)) else {}
    if set(given) != set(keys):
        wanted = "a dictionary with the keys" if isinstance(keys[0], str) else "a list with the items"
        raise ValueError(
            f"{name} must have the structure of the encoder's inputs, {wanted} {', '.join(map(str, keys))}; "
            f"got {str(argument)[:200]}"
        )
    return {key: given[key] for key in keys}


def is_shape(value) -> bool:
    """Returns whether a value is one shape, not several."""
    if isinstance(value, tf.TensorShape):
        return True
    sequence = isinstance(value, (list, tuple))
    return sequence and all(size is None or isinstance(size, (int, np.integer)) for size in value)


def is_bounds(value) -> bool:
    """Returns whether a value is the bounds of a single input."""
    pair = isinstance(value, (list, tuple)) and len(value) == 2
    return value is None or value == SOFTMAX or (pair and all(isinstance(v, numbers.Real) for v in value))


def is_initial(value) -> bool:
    """Returns whether a value is not an array, and can be the initial value of every input."""
    config = isinstance(value, Mapping) and "class_name" in value
    return value is None or config or isinstance(value, (str, numbers.Number)) or callable(value)


# --- of an encoder ---


def describe(encoder: keras.layers.Layer, event_shape, bounds, trainable) -> dict[Any, PseudoInput]:
    """Returns the pseudo-inputs of each input of an encoder, by key.

    Raises:
      ValueError: `event_shape` is not given and the encoder does not know it, or it differs from
        what the encoder knows; the bounds make no sense; or an integer input is to be learned.
    """
    shapes, known = _event_shapes(encoder, event_shape), _known_shapes(encoder)
    if known is not None and known != shapes:
        raise ValueError(
            f"event_shape must be the encoder's input shape {_shown(known)}; got {_shown(shapes)}"
        )
    dtypes = _integer_dtypes(encoder, shapes)
    all_bounds = spread("bounds", bounds, shapes, is_bounds)
    learned = spread("trainable", trainable, shapes, lambda value: isinstance(value, (bool, int, np.bool_)))
    parts = {}
    for key, shape in shapes.items():
        name = "pseudo-inputs" if key is None else f"pseudo-inputs {key!r}"
        if dtypes[key] is not None and learned[key]:
            raise ValueError(
                f"the encoder's input{'' if key is None else f' {key!r}'} is of {dtypes[key]}: integers have no "
                "gradient, so that pseudo-inputs cannot be learned there. Let the encoder take them one-hot, with "
                'bounds="softmax", or fix them: trainable=False, and initial=integers [K, *event]'
            )
        bounds = None if dtypes[key] is not None else _checked_bounds(all_bounds[key])
        parts[key] = PseudoInput(name, shape, dtypes[key], bounds, bool(learned[key]))
    return parts


def check_gradients(encoder: keras.layers.Layer, parts: Mapping[Any, PseudoInput]) -> None:
    """Checks, without computing anything, that pseudo-inputs to be learned get a gradient.

    Raises:
      ValueError: the encoder's output does not depend on one of them in a way that has a gradient.
    """
    learned = {key: part for key, part in parts.items() if part.trainable}
    own = isinstance(encoder, DistributionLayer)  # of tfvamp, known to have gradients
    if own or not learned or not encoder.built or not tf.executing_eagerly():
        return

    def trace(*inputs):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            posterior = as_diagonal_gaussian(
                encoder(structure_of(dict(zip(parts, inputs, strict=True))), training=False)
            )
            value = tf.reduce_sum(posterior.loc) + tf.reduce_sum(posterior.log_variance)
        gradients = tape.gradient(value, inputs)
        found.update(zip(parts, (gradient is not None for gradient in gradients), strict=True))

    found: dict[Any, bool] = {}
    dtype = encoder.variable_dtype if encoder.variable_dtype == "float64" else "float32"
    specs = [tf.TensorSpec([1, *part.shape], part.dtype or dtype) for part in parts.values()]
    tf.function(trace, autograph=False).get_concrete_function(*specs)
    without = [part.name for key, part in learned.items() if not found[key]]
    if without:
        raise ValueError(
            f"the encoder has no gradient with respect to its {' and '.join(without)}, which could never be learned "
            "(an Embedding or a rounding takes integers, for instance): let the encoder take one-hot vectors, with "
            'bounds="softmax", or fix them with trainable=False and initial=data'
        )


def _event_shapes(encoder: keras.layers.Layer, event_shape) -> dict[Any, Shape]:
    if event_shape is not None:
        try:
            shapes = leaves(event_shape, is_shape)
        except ValueError:
            raise ValueError(
                "event_shape must be the shape of one input, such as (28, 28, 1), or a list or a dictionary of such "
                f"shapes for an encoder of several inputs; got {event_shape}"
            ) from None
        return {key: tuple(int(size) for size in shape) for key, shape in shapes.items()}
    known = _known_shapes(encoder)
    if known is None:
        raise ValueError(
            "the encoder does not tell the shape of its inputs yet: pass event_shape, such as "
            "event_shape=(28, 28, 1), or a list or a dictionary of shapes for an encoder of several inputs"
        )
    return known


def _known_shapes(encoder: keras.layers.Layer) -> dict[Any, Shape] | None:
    """Returns the input shapes that a built encoder knows, without the batch; None if it does not know all sizes."""
    inputs = _symbolic_inputs(encoder)
    if inputs is not None:
        known = keras.tree.map_structure(lambda tensor: tensor.shape, inputs)
    else:
        known = (encoder.get_build_config() or {}).get("input_shape") if encoder.built else None
        known = getattr(encoder, "input_shape", known)
    if known is None:
        return None
    try:
        shapes = {key: tuple(shape)[1:] for key, shape in leaves(known, is_shape).items()}
    except ValueError:  # deeper structures
        return None
    return None if any(None in shape for shape in shapes.values()) else shapes


def _symbolic_inputs(encoder: keras.layers.Layer):
    """Returns the inputs of a functional encoder, with their structure; None for any other encoder.

    Keras 3.15 has no public way to get the names of a dictionary of inputs. If its internals
    change, the inputs are returned as a list.
    """
    inputs = getattr(encoder, "_inputs_struct", None)
    inputs = getattr(encoder, "inputs", None) if inputs is None else inputs
    if isinstance(inputs, (list, tuple)):
        return inputs[0] if len(inputs) == 1 else list(inputs) or None
    return inputs


def _integer_dtypes(encoder: keras.layers.Layer, shapes: Mapping[Any, Shape]) -> dict[Any, str | None]:
    """Returns the dtypes of a functional encoder's integer inputs, None for all others."""
    inputs = _symbolic_inputs(encoder)
    try:
        inputs = {} if inputs is None else leaves(inputs, keras.utils.is_keras_tensor)
    except ValueError:  # deeper structures
        inputs = {}
    dtypes = {key: keras.backend.standardize_dtype(tensor.dtype) for key, tensor in inputs.items()}
    return {
        key: dtypes[key] if dtypes.get(key, "float32").startswith(("int", "uint")) else None for key in shapes
    }


def _checked_bounds(bounds) -> Bounds:
    if bounds is None or bounds == SOFTMAX:
        return bounds
    pair = tuple(float(bound) for bound in bounds) if is_bounds(bounds) else ()
    if len(pair) != 2 or not pair[0] < pair[1]:
        raise ValueError(
            f'bounds must be (low, high) with low < high, "softmax" for probabilities, or None; got {bounds}'
        )
    return pair


def _shown(shapes: Mapping[Any, Shape]) -> str:
    return str(structure_of({key: list(shape) for key, shape in shapes.items()}))


# --- from data ---


def draw(data, count: int, parts: Mapping[Any, PseudoInput], seed: int) -> tuple[dict, dict]:
    """Returns `count` different data points and the range of all data, both by key.

    The points have shape [count, *event]; the range is (smallest, largest) value. Each batch is
    read once, and only the drawn points are kept (reservoir sampling).

    Raises:
      ValueError: there are fewer than `count` data points, or their shape is not the encoder's.
    """
    generator = np.random.default_rng(seed)
    kept: dict[Any, list[np.ndarray]] = {key: [] for key in parts}
    ranges = dict.fromkeys(parts, (np.inf, -np.inf))
    seen = 0
    for batch in _batches(data, parts):
        if not len(next(iter(batch.values()))):
            continue
        for key, values in batch.items():
            low, high = ranges[key]
            ranges[key] = (min(low, float(np.min(values))), max(high, float(np.max(values))))
        for row in range(len(next(iter(batch.values())))):
            place = int(generator.integers(0, seen + 1))
            for key, values in batch.items():
                if seen < count:
                    kept[key].append(values[row])
                elif place < count:
                    kept[key][place] = values[row]
            seen += 1
    if seen < count:
        raise ValueError(
            f"there are {seen} data points for {count} pseudo-inputs: give more data, or choose fewer components"
        )
    return {key: np.stack(values) for key, values in kept.items()}, ranges


def _batches(data, parts: Mapping[Any, PseudoInput]):
    """Yields batches of data by key, each [B, *event]; the data are what `fit` takes, with or without targets."""
    if isinstance(data, tf.data.Dataset):
        if data.cardinality() == tf.data.INFINITE_CARDINALITY:
            raise ValueError("the data never end: give a data set without repeat(), or take(n) batches of it")
        items: Iterable[Any] = data.as_numpy_iterator()
    elif isinstance(data, keras.utils.PyDataset):
        items = (data[index] for index in range(len(data)))
    elif hasattr(data, "__next__"):
        items = data
    else:
        items = [data]
    for item in items:
        yield _checked_batch(item, parts)


def _checked_batch(item, parts: Mapping[Any, PseudoInput]) -> dict[Any, np.ndarray]:
    keys = list(parts)
    candidates = [item]
    if isinstance(item, tuple):  # (inputs, targets), as in `fit`
        candidates.insert(0, keras.utils.unpack_x_y_sample_weight(item)[0] if len(item) <= 3 else item)
    for candidate in candidates:
        if keys == [None]:
            values = {None: candidate}
        elif isinstance(candidate, Mapping):
            values = dict(candidate)
        else:
            listed = candidate if isinstance(candidate, (list, tuple)) else ()
            values = dict(enumerate(listed))  # type: ignore[arg-type]
        if not set(keys) <= set(values):
            continue
        try:
            arrays = {key: np.asarray(values[key]) for key in keys}
        except ValueError:  # lists of different lengths
            continue
        if all(arrays[key].shape[1:] == parts[key].shape for key in keys):
            lengths = [len(arrays[key]) for key in keys]
            if len(set(lengths)) > 1:
                raise ValueError(f"all inputs must have the same number of data points; got {lengths}")
            if any(arrays[key].dtype.kind not in "biuf" for key in keys):
                raise ValueError("the data must be numbers; got text or other objects")
            if any(arrays[key].dtype.kind == "f" and not np.isfinite(arrays[key]).all() for key in keys):
                raise ValueError("the data have values that are NaN or infinite")
            return arrays
    wanted = _shown({key: part.shape for key, part in parts.items()})
    got = keras.tree.map_structure(lambda value: list(np.shape(value)), item)
    raise ValueError(
        f"data must have the shapes of the encoder's inputs, [B, *event] with event {wanted}; got {got}"
    )
