"""Adam on normalised gradients, the optimiser of the paper's code."""

from __future__ import annotations

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="tfvamp")
class NormalizedAdam(keras.optimizers.Adam):
    """Adam on g / (|g| + 1e-7), where |g| is the L2 norm of one variable's whole gradient.

    With the paper's epsilon of 1e-8 (Keras's default is 1e-7). The norm is taken in
    `update_step`, after replicas have summed their gradients.
    """

    def __init__(self, learning_rate=5e-4, epsilon: float = 1e-8, **kwargs):
        super().__init__(learning_rate=learning_rate, epsilon=epsilon, **kwargs)

    def update_step(self, gradient, variable, learning_rate):
        norm = ops.sqrt(ops.sum(ops.square(gradient)))
        super().update_step(gradient / (norm + 1e-7), variable, learning_rate)
