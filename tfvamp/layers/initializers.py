"""Initial weights as in the paper's published code (PyTorch's conventions, in Keras)."""

from __future__ import annotations

import math

import keras


def he_normal(fan_in: int) -> keras.initializers.Initializer:
    """Returns N(0, 2 / fan_in), untruncated; Keras's own HeNormal truncates at two deviations."""
    return keras.initializers.RandomNormal(mean=0.0, stddev=math.sqrt(2.0 / fan_in))


def fan_in_uniform(fan_in: int) -> keras.initializers.Initializer:
    """Returns U(-1/sqrt(fan_in), 1/sqrt(fan_in)), PyTorch's default for biases."""
    bound = 1.0 / math.sqrt(fan_in)
    return keras.initializers.RandomUniform(minval=-bound, maxval=bound)


def conv1x1(filters: int, fan_in: int, **kwargs) -> keras.layers.Conv2D:
    """Returns a 1x1 convolution, a linear layer at every pixel, with the paper's initial weights."""
    return keras.layers.Conv2D(
        filters,
        1,
        kernel_initializer=fan_in_uniform(fan_in),  # separate objects: a Keras initializer repeats its draws
        bias_initializer=fan_in_uniform(fan_in),
        **kwargs,
    )


def dense(units: int, fan_in: int, **kwargs) -> keras.layers.Dense:
    """Returns a linear layer with the paper's initial weights."""
    return keras.layers.Dense(
        units, kernel_initializer=he_normal(fan_in), bias_initializer=fan_in_uniform(fan_in), **kwargs
    )
