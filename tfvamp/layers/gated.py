"""The gated dense layer of the paper's networks."""

from __future__ import annotations

import keras
from keras import ops

from tfvamp.layers import initializers


@keras.saving.register_keras_serializable(package="tfvamp")
class GatedDense(keras.layers.Layer):
    """h = (W x + b) * sigmoid(V x + c), Tomczak and Welling (2018), section 5.

    Value and gate are separate variables, because the optimiser normalises the
    gradient of each variable, but one matrix product.

    Args:
      units: width of the output, [..., units].
    """

    def __init__(self, units: int, **kwargs):
        super().__init__(**kwargs)
        if units < 1:
            raise ValueError(f"units must be at least 1; got {units}")
        self.units = int(units)

    def build(self, input_shape):
        fan_in = int(input_shape[-1])
        for part in ("value", "gate"):
            kernel = self.add_weight(
                name=f"{part}_kernel", shape=(fan_in, self.units), initializer=initializers.he_normal(fan_in)
            )
            bias = self.add_weight(
                name=f"{part}_bias", shape=(self.units,), initializer=initializers.fan_in_uniform(fan_in)
            )
            setattr(self, f"{part}_kernel", kernel)
            setattr(self, f"{part}_bias", bias)

    def call(self, inputs):
        kernel = ops.concatenate([self.value_kernel, self.gate_kernel], axis=-1)
        bias = ops.concatenate([self.value_bias, self.gate_bias], axis=-1)
        value, gate = ops.split(ops.matmul(inputs, kernel) + bias, 2, axis=-1)
        return value * ops.sigmoid(gate)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.units)

    def get_config(self):
        return {**super().get_config(), "units": self.units}
