"""Learned priors for variational auto-encoders in TensorFlow and Keras."""

from tfvamp import datasets, layers, models
