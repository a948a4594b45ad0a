"""On a GPU: a step runs there and agrees with the CPU."""

import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import small_vae
from tfvamp.optimizers import NormalizedAdam

pytestmark = pytest.mark.skipif(not tf.config.list_physical_devices("GPU"), reason="there is no GPU here")


@pytest.mark.parametrize("prior", ["standard", "mog", "vamp", "vamp-data", "vamp-weighted"])
def test_a_step_agrees_with_the_cpu(prior, images):
    logs, weights = {}, {}
    for device in ("CPU:0", "GPU:0"):
        with tf.device(device):
            model = small_vae(prior)
            model.compile(optimizer=NormalizedAdam(1e-3))
            step = tf.function(model.train_step, jit_compile=True, autograph=False)
            for _ in range(3):
                result = step(tf.constant(images))
            logs[device] = {name: float(value) for name, value in result.items()}
            assert device in model.trainable_variables[0].value.device
            weights[device] = [variable.numpy() for variable in model.trainable_variables]
    for cpu, gpu in zip(weights["CPU:0"], weights["GPU:0"], strict=True):
        np.testing.assert_allclose(gpu, cpu, atol=1e-3)
    for name, value in logs["CPU:0"].items():
        np.testing.assert_allclose(logs["GPU:0"][name], value, rtol=1e-3)
