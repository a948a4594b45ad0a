"""Models whose evidence has a closed form: linear-Gaussian decoders."""

from __future__ import annotations

import numpy as np
import scipy.special
import scipy.stats
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfvamp.layers import DiagonalGaussian, DiagonalGaussianMixture


class LinearGaussian:
    """p(x | z) = N(x; W z + b, s^2 I) with orthogonal columns of W, so that posteriors are diagonal.

    Under a prior N(m, diag(v)) the posterior is N(v' (m / v + W^T (x - b) / s^2), diag(v')) with
    1 / v' = 1 / v + |W_d|^2 / s^2, and the evidence is N(x; W m + b, W diag(v) W^T + s^2 I).
    """

    def __init__(self, width=5, dims=3, noise=0.6, components=1, seed=0):
        rng = np.random.default_rng(seed)
        basis, _ = np.linalg.qr(rng.normal(size=(width, dims)))
        self.w = basis * rng.uniform(0.5, 1.5, size=dims)
        self.b = rng.normal(size=width)
        self.noise = noise
        self.logits = rng.normal(size=components)
        self.loc = rng.normal(size=(components, dims))
        self.log_variance = rng.uniform(-1.0, 0.5, size=(components, dims))
        if components == 1:
            self.loc, self.log_variance = np.zeros((1, dims)), np.zeros((1, dims))

    def encoder(self, x, training=False):
        """The exact posterior under component 0 of the prior."""
        x = tf.cast(x, tf.float32)
        prior_precision = np.exp(-self.log_variance[0])
        variance = 1.0 / (prior_precision + (self.w**2).sum(0) / self.noise**2)
        scores = tf.linalg.matmul(x - self.b.astype(np.float32), (self.w / self.noise**2).astype(np.float32))
        loc = (scores + (self.loc[0] * prior_precision).astype(np.float32)) * variance.astype(np.float32)
        return DiagonalGaussian(loc, tf.broadcast_to(np.log(variance).astype(np.float32), tf.shape(loc)))

    def decoder(self, z):
        loc = tf.linalg.matvec(self.w.astype(np.float32), z) + self.b.astype(np.float32)
        return tfd.MultivariateNormalDiag(loc, tf.fill([len(self.b)], np.float32(self.noise)))

    def prior(self):
        components = DiagonalGaussian(self.loc.astype(np.float32), self.log_variance.astype(np.float32))
        return DiagonalGaussianMixture(tfd.Categorical(logits=self.logits.astype(np.float32)), components)

    def draw(self, count, seed=0):
        """Data from the model itself, [count, width]."""
        rng = np.random.default_rng(seed)
        k = rng.choice(len(self.logits), size=count, p=scipy.special.softmax(self.logits))
        z = self.loc[k] + np.exp(0.5 * self.log_variance[k]) * rng.normal(size=(count, self.w.shape[1]))
        return (z @ self.w.T + self.b + self.noise * rng.normal(size=(count, len(self.b)))).astype(np.float32)

    def evidence(self, x):
        """log p(x), [N], in float64."""
        terms = [
            scipy.stats.multivariate_normal(
                self.w @ loc + self.b,
                self.w @ np.diag(np.exp(log_variance)) @ self.w.T + self.noise**2 * np.eye(len(self.b)),
            ).logpdf(x)
            for loc, log_variance in zip(self.loc, self.log_variance, strict=True)
        ]
        return scipy.special.logsumexp(
            np.stack(terms) + scipy.special.log_softmax(self.logits)[:, None], axis=0
        )
