"""Models whose evidence has a closed form: linear-Gaussian decoders, of one and of two stochastic layers."""

from __future__ import annotations

import numpy as np
import scipy.special
import scipy.stats
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfvamp import objectives
from tfvamp.layers import DiagonalGaussian, DiagonalGaussianMixture


class LinearGaussian:
    """p(x | z) = N(x; W z + b, s^2 I) with orthogonal columns of W, so that posteriors are diagonal.

    Under a prior N(m, diag(v)) the posterior is N(v' (m / v + W^T (x - b) / s^2), diag(v')) with
    1 / v' = 1 / v + |W_d|^2 / s^2, and the evidence is N(x; W m + b, W diag(v) W^T + s^2 I).
    """

    latent_names: tuple = ("z",)
    levels: tuple = ()

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

    def posterior(self, x):
        return self.encoder(x)

    def likelihood(self, z):
        return self.decoder(z)

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


class TwoLayers:
    """p(z2) a mixture, p(z1 | z2) = N(a z2 + c, diag(v1)), p(x | z1) = N(x; W z1 + b, s^2 I), W with orthogonal columns.

    Then x = W (a z2 + c) + b + noise of covariance W diag(v1) W^T + s^2 I: one LinearGaussian in z2, with
    other noise along each column. The posteriors q(z2 | x), q(z1 | x, z2) are diagonal and exact for
    component 0 of the prior.
    """

    latent_names: tuple = ("z2", "z1")

    def __init__(self, width=5, dims=3, noise=0.6, components=1, seed=0):
        rng = np.random.default_rng(seed + 100)
        self.below = LinearGaussian(width, dims, noise, components, seed)
        self.a, self.c = rng.uniform(0.5, 1.2, dims), rng.normal(size=dims)
        self.log_variance_z1 = rng.uniform(-1.5, 0.0, size=dims)
        self.prior = self.below.prior

    def _score(self, x):
        """The least-squares z1 of x, and the variance of that, in each dimension."""
        w, noise = self.below.w, self.below.noise
        square = (w**2).sum(0)
        z1 = tf.linalg.matmul(x - self.below.b.astype(np.float32), (w / square).astype(np.float32))
        return z1, noise**2 / square

    def encoder(self, x, training=False):
        z1, variance = self._score(tf.cast(x, tf.float32))
        spread = variance + np.exp(self.log_variance_z1)  # of z1's estimate around a z2 + c
        precision = np.exp(-self.below.log_variance[0]) + self.a**2 / spread
        shift = self.below.loc[0] * np.exp(-self.below.log_variance[0]) - self.a * self.c / spread
        loc = (z1 * (self.a / spread).astype(np.float32) + shift.astype(np.float32)) / precision.astype(
            np.float32
        )
        return DiagonalGaussian(loc, tf.broadcast_to(-np.log(precision).astype(np.float32), tf.shape(loc)))

    def posterior_z1(self, x, z2):
        z1, variance = self._score(tf.cast(x, tf.float32))
        prior = self.prior_z1(z2)
        precision = np.exp(-self.log_variance_z1) + 1.0 / variance
        loc = (
            prior.loc * np.exp(-self.log_variance_z1).astype(np.float32)
            + z1 * (1.0 / variance).astype(np.float32)
        ) / precision.astype(np.float32)
        return DiagonalGaussian(loc, tf.broadcast_to(-np.log(precision).astype(np.float32), tf.shape(loc)))

    def prior_z1(self, z2):
        loc = z2 * self.a.astype(np.float32) + self.c.astype(np.float32)
        return DiagonalGaussian(loc, tf.broadcast_to(self.log_variance_z1.astype(np.float32), tf.shape(loc)))

    def decoder(self, z2, z1):
        return self.below.decoder(z1)

    def posterior(self, x):
        return self.encoder(x)

    def likelihood(self, z2, z1):
        return self.decoder(z2, z1)

    @property
    def levels(self):
        return (objectives.Level("z1", len(self.a), self.posterior_z1, self.prior_z1),)

    def draw(self, count, seed=0):
        """Data from the model itself, [count, width]."""
        rng = np.random.default_rng(seed)
        below = self.below
        k = rng.choice(len(below.logits), size=count, p=scipy.special.softmax(below.logits))
        z2 = below.loc[k] + np.exp(0.5 * below.log_variance[k]) * rng.normal(size=(count, len(self.a)))
        z1 = self.a * z2 + self.c + np.exp(0.5 * self.log_variance_z1) * rng.normal(size=z2.shape)
        return (z1 @ below.w.T + below.b + below.noise * rng.normal(size=(count, len(below.b)))).astype(
            np.float32
        )

    def evidence(self, x):
        """log p(x), [N], in float64."""
        w, b = self.below.w, self.below.b
        floor = w @ np.diag(np.exp(self.log_variance_z1)) @ w.T + self.below.noise**2 * np.eye(len(b))
        terms = [
            scipy.stats.multivariate_normal(
                w @ (self.a * loc + self.c) + b,
                w @ np.diag(self.a**2 * np.exp(log_variance)) @ w.T + floor,
            ).logpdf(x)
            for loc, log_variance in zip(self.below.loc, self.below.log_variance, strict=True)
        ]
        weights = scipy.special.log_softmax(self.below.logits)[:, None]
        return scipy.special.logsumexp(np.stack(terms) + weights, axis=0)
