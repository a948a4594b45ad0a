"""Diagnostics of the latents, of the prior, and of the images that a model generates."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfvamp import seeds
from tfvamp.layers.flow_prior import FlowDistribution
from tfvamp.layers.gaussian import DiagonalGaussian
from tfvamp.layers.mixture import DiagonalGaussianMixture

ACTIVITY_THRESHOLD = 0.01  # Burda, Grosse and Salakhutdinov (2016)
DEAD = 0.01  # of the usage that each component would have if all were used equally
DRAWS = 10  # latents per image
MOST_DRAWN = 5000  # maximum number of images whose latents are drawn: each is compared with all posteriors
AT_ONCE = 2**22  # log-densities [rows, components] or distances at a time


def variances(means: np.ndarray) -> np.ndarray:
    """Returns Var_x(E_q[z_d | x]) of each latent from posterior means [N, D], in descending order, [D]."""
    return np.sort(means.var(axis=0))[::-1]


def active_units(means: np.ndarray) -> int:
    """Returns the number of latents with Var_x(E_q[z | x]) >= 0.01, from posterior means [N, D]."""
    return int((variances(means) >= ACTIVITY_THRESHOLD).sum())


class Surgery(NamedTuple):
    """The average KL in two parts, in nats: Hoffman and Johnson (2016).

    Attributes:
      average_kl: mean over the N images of KL(q(z | x_n) || p(z)), the sum of the two parts.
      mutual_information: I_q(x; z), how much z tells about the image that it came from; at most log
        N.
      marginal_kl: KL(q(z) || p(z)), how far the prior is from the aggregated posterior q(z) = 1/N
        sum_n q(z | x_n).
      monte_carlo_error: standard deviation of either part over repeated draws.
      ceiling: log N. If the mutual information is near it, then it is too low for the population
        that the images are from, and `marginal_kl` is too high by as much: more images are needed.
    """

    average_kl: float
    mutual_information: float
    marginal_kl: float
    monte_carlo_error: float
    ceiling: float


def surgery(
    posterior: DiagonalGaussian, prior: tfd.Distribution, draws: int = DRAWS, seed: int = 0
) -> Surgery:
    """Splits the average KL of posteriors, batch shape [N], exactly except for the noise of a few draws per image.

    The aggregated posterior is the whole mixture of N components, not that of a batch, so neither
    part is biased as an estimate for these N images. Latents are drawn for all images, or for 5000
    chosen at random.

    Raises:
      ValueError: there are fewer than two draws, from which no error can be estimated.
    """
    if draws < 2:
        raise ValueError(f"at least 2 draws are needed; got {draws}")
    count = posterior.loc.shape[0]
    drawn = min(count, MOST_DRAWN)
    chosen = (
        np.random.default_rng(seed).choice(count, drawn, replace=False) if drawn < count else np.arange(count)
    )
    own = DiagonalGaussian(tf.gather(posterior.loc, chosen), tf.gather(posterior.log_variance, chosen))
    together = DiagonalGaussianMixture(tfd.Categorical(logits=tf.zeros([count], posterior.dtype)), posterior)
    information, marginal = [], []
    for z in _drawn(own, draws, seed):  # [drawn, D]
        log_q, log_together = own.log_prob(z), _in_rows(together.log_prob, z, count)
        information.append((log_q - log_together).numpy().astype(np.float64))
        marginal.append((log_together - prior.log_prob(z)).numpy().astype(np.float64))
    of_draws = np.stack([information, marginal])  # [2, draws, drawn]
    mutual_information, marginal_kl = of_draws.mean(axis=(1, 2))
    if drawn < count:  # the choice of images varies, too
        errors = of_draws.mean(axis=1).std(axis=1, ddof=1) / math.sqrt(drawn)
    else:
        errors = np.sqrt(of_draws.var(axis=1, ddof=1).sum(axis=1) / draws) / count
    return Surgery(
        float(mutual_information + marginal_kl),
        float(mutual_information),
        float(marginal_kl),
        float(errors.max()),
        math.log(count),
    )


class Usage(NamedTuple):
    """The use of a mixture prior's components by images.

    Attributes:
      shares: mean responsibility of each component for the images' latents, [K]; they sum to 1.
      effective: exp of the entropy of `shares`, from 1 (one component takes all) to K (all are used
        equally).
      dead: number of components with a share of less than a hundredth of 1 / K.
      entropy: mean entropy of the responsibilities for one latent, in nats; 0 if one component is
        enough.
    """

    shares: np.ndarray
    effective: float
    dead: int
    entropy: float


def usage(
    posterior: DiagonalGaussian,
    prior: DiagonalGaussianMixture | FlowDistribution,
    draws: int = DRAWS,
    seed: int = 0,
) -> Usage:
    """Returns how a mixture's components are used, from p(k | z) at latents of posteriors, batch shape [N]."""
    count = prior.num_components
    shares, entropies, latents = np.zeros(count), [], 0
    for z in _drawn(posterior, draws, seed):
        for rows in _rows(z, count):
            log_r = tf.nn.log_softmax(prior.component_log_prob(rows)).numpy().astype(np.float64)
            shares += np.exp(log_r).sum(axis=0)
            entropies.append(-(np.exp(log_r) * log_r).sum(axis=1))
            latents += len(log_r)
    shares /= latents
    used = shares[shares > 0]
    return Usage(
        shares,
        float(np.exp(-(used * np.log(used)).sum())),
        int((shares < DEAD / count).sum()),
        float(np.concatenate(entropies).mean()),
    )


def nearest(x: np.ndarray, among: np.ndarray, but_itself: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Returns the index of the nearest of some images [M, H, W, C] to each of x [N, H, W, C], and its distance.

    Args:
      but_itself: whether x and `among` are the same images, so that each would be its own nearest.

    Returns:
      indices [N], and root mean squared differences of pixels [N].
    """
    rows, others = x.reshape(len(x), -1), among.reshape(len(among), -1)
    squares = np.einsum("mp,mp->m", others, others)
    indices, size = [], max(1, AT_ONCE // len(others))
    for first in range(0, len(rows), size):
        part = rows[first : first + size]
        distance = squares - 2.0 * part @ others.T  # |x|^2 is omitted: it is the same for all
        if but_itself:
            distance[np.arange(len(part)), np.arange(first, first + len(part))] = np.inf
        indices.append(distance.argmin(axis=1))
    index = np.concatenate(indices)
    return index, np.sqrt(((rows - others[index]).astype(np.float64) ** 2).mean(axis=1))


class TwoSamples(NamedTuple):
    """A test of whether two sets of images have the same distribution: Lopez-Paz and Oquab (2017), section 3.

    Attributes:
      accuracy: share of the images whose nearest neighbour is from their own set. It is near 1/2 if
        nothing tells the sets apart, 1 if everything does, and below 1/2 if the second set copies
        the first.
      first, second: the same share among the images of each set.
    """

    accuracy: float
    first: float
    second: float


def two_samples(first: np.ndarray, second: np.ndarray) -> TwoSamples:
    """Returns the leave-one-out accuracy of a 1-nearest-neighbour classifier in pixel space, for two sets [N, H, W, C].

    Raises:
      ValueError: the sets differ in size, so that the accuracy for equal distributions would not be
        1/2.
    """
    if len(first) != len(second):
        raise ValueError(f"the sets must have the same size; got {len(first)} and {len(second)}")
    both = np.concatenate([first, second])
    index, _ = nearest(both, both, but_itself=True)
    of_first = index < len(first)
    right_first, right_second = of_first[: len(first)].mean(), (~of_first[len(first) :]).mean()
    return TwoSamples(float(0.5 * (right_first + right_second)), float(right_first), float(right_second))


def probes(
    means: np.ndarray, labels: np.ndarray, test_means: np.ndarray, test_labels: np.ndarray
) -> dict[str, float]:
    """Returns the accuracies on test images of two classifiers of posterior means [N, D]: of the 5 nearest, and linear.

    Raises:
      ImportError: scikit-learn is not installed.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    classifiers = {
        "nearest_neighbours": KNeighborsClassifier(min(5, len(means))),
        "linear": make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
    }
    return {
        name: float(one.fit(means, labels).score(test_means, test_labels))
        for name, one in classifiers.items()
    }


def components_of(prior, means: np.ndarray) -> np.ndarray:
    """Returns the index of the most responsible component of a mixture for each of some latents [N, D], [N]."""
    found = [
        tf.argmax(prior.component_log_prob(rows), axis=1)
        for rows in _rows(tf.convert_to_tensor(means, prior.dtype), prior.num_components)
    ]
    return tf.concat(found, axis=0).numpy()


def clusters(
    components: np.ndarray, labels: np.ndarray, test_components: np.ndarray, test_labels: np.ndarray
) -> dict[str, float]:
    """Measures how well components [N] agree with labels [N].

    Returns:
      accuracy: share of the test images whose label is the most frequent one among the training
        images of their component (a component without training images is wrong);
        normalised_mutual_information and adjusted_rand_index of the test images.

    Raises:
      ImportError: scikit-learn is not installed.
    """
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    classes, index = np.unique(labels, return_inverse=True)
    named = {
        component: classes[np.bincount(index[components == component]).argmax()]
        for component in np.unique(components)
    }
    right = [
        component in named and named[component] == label
        for component, label in zip(test_components, test_labels, strict=True)
    ]
    return {
        "accuracy": float(np.mean(right)),
        "normalised_mutual_information": float(normalized_mutual_info_score(test_labels, test_components)),
        "adjusted_rand_index": float(adjusted_rand_score(test_labels, test_components)),
    }


def plane(means: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns two principal axes [D, 2] of posterior means [N, D], and their centre [D]; a missing axis is 0."""
    centre = means.mean(axis=0)
    axes = np.linalg.svd(means - centre, full_matrices=False)[2][:2].T
    return np.pad(axes, [(0, 0), (0, 2 - axes.shape[1])]), centre


def _drawn(posterior: DiagonalGaussian, draws: int, seed: int):
    """Yields latents [N, D], one set per draw."""
    base = seeds.stateless(seed, "diagnose")
    for index in range(draws):
        yield posterior.at(seeds.normal(tf.shape(posterior.loc), seeds.fold_in(base, index)))


def _rows(z: tf.Tensor, width: int):
    """Yields parts of z [N, D] for which a matrix [rows, width] is not large."""
    size = max(1, AT_ONCE // width)
    for first in range(0, len(z), size):
        yield z[first : first + size]


def _in_rows(function, z: tf.Tensor, width: int) -> tf.Tensor:
    return tf.concat([function(rows) for rows in _rows(z, width)], axis=0)
