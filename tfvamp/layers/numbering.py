"""Names of layers that a model may have several of: "kl", "kl_1"..., counted within a functional model."""

from __future__ import annotations

import weakref

import keras

# For each input layer the names of the numbered layers that depend on it.
_names_below: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


class NumberedLayer(keras.layers.Layer):
    """A layer with a metric under its name, which is numbered if no name is given.

    Keras numbers layers per process, so that the keys of `history` would depend on what was built
    before. Here, a layer that becomes part of a functional model takes the first name that is free
    in that model.

    Args:
      base: name of the first such layer.
      name: name of the layer; None to number it.
    """

    def __init__(self, base: str, name: str | None, **kwargs):
        self._base = base if name is None else None
        if name is None:
            count = keras.backend.get_uid(base)
            name = base if count == 1 else f"{base}_{count - 1}"
        super().__init__(name=name, **kwargs)
        self.mean = keras.metrics.Mean(name=name)

    def __call__(self, *args, **kwargs):
        if self._base is not None:
            roots = _roots(keras.tree.flatten((args, kwargs)))
            if roots:
                self._take_name(roots)
        return super().__call__(*args, **kwargs)

    def _take_name(self, roots) -> None:
        used = set().union(*(_names_below.setdefault(root, set()) for root in roots))
        number = 0
        while (name := f"{self._base}_{number}" if number else self._base) in used:
            number += 1
        for root in roots:
            _names_below[root].add(name)
        self.name = self.mean.name = name
        self._base = None


def _roots(values) -> set:
    """Returns the input layers that symbolic tensors depend on; empty if there are no such tensors.

    Keras 3.15 has no public way to ask. If its internals change, layers are numbered per process.
    """
    try:
        return _found_roots(values)
    except AttributeError:
        return set()


def _found_roots(values) -> set:
    histories = [value._keras_history for value in values if keras.utils.is_keras_tensor(value)]
    open_nodes = [history.operation._inbound_nodes[history.node_index] for history in histories]
    seen, roots = set(), set()
    while open_nodes:
        node = open_nodes.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if node.is_input:
            roots.add(node.operation)
        open_nodes += node.parent_nodes
    return roots
