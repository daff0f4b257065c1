"""The feature spaces in which generated images are measured: networks, weights, what each gives.

In Inception's space the measures are those of ADM's evaluator (Dhariwal and Nichol, 2021). Where
its weights are not at hand, VGG16's space gives other numbers under names of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mq_jax.images.scale import from_uint8
from mq_jax.metrics import inception_score, manifold
from mq_jax.models import inception, inception_weights, lpips, lpips_weights
from mq_jax.models.legacy_resize import resize_as_tensorflow_1
from mq_jax.terminal.spelling import suggestion

# In the order in which they are reported.
INCEPTION_NAMES = ("gfid", "sfid", "inception_score", "precision", "recall")
VGG_NAMES = ("frechet_vgg", "precision_vgg", "recall_vgg")
NAMES = INCEPTION_NAMES + VGG_NAMES

# The least side of an image; Inception resizes.
SMALLEST_SIDE = {
    **dict.fromkeys(INCEPTION_NAMES, 1),
    **dict.fromkeys(VGG_NAMES, lpips.architecture("vgg").minimum),
}


class Activations(NamedTuple):
    """What a network makes of images.

    Attributes:
      pool: f32[B, D], features of whole images.
      spatial: f32[B, E], features with their places; None in a space without.
      logits: f32[B, C], of classes; None in a space without.
    """

    pool: jax.Array
    spatial: jax.Array | None = None
    logits: jax.Array | None = None


class Space(NamedTuple):
    """A feature space.

    Attributes:
      frechet: name of the Fréchet distance between pooled features.
      precision: name of the precision of samples.
      recall: name of their recall.
      spatial: name of the Fréchet distance between spatial features; "": there are none.
      score: name of the Inception score; "": there is none.
      dim: D, of pooled features.
      spatial_dim: E, of spatial features; 0: there are none.
      classes: C; 0: there are none.
      function: (weights, images u8[B, H, W, 3]) -> Activations.
      weights: one tree, on the host.
      network: what a protocol says of the network and its input, fit for JSON.
    """

    frechet: str
    precision: str
    recall: str
    spatial: str
    score: str
    dim: int
    spatial_dim: int
    classes: int
    function: Callable[[Any, jax.Array], Activations]
    weights: Any
    network: dict[str, Any]

    @property
    def names(self) -> tuple[str, ...]:
        """Of all that is measured here, in the order in which it is reported."""
        names = (self.frechet, self.spatial, self.score, self.precision, self.recall)
        return tuple(name for name in names if name)

    def card(self) -> dict[str, dict[str, Any]]:
        """What the protocol of an evaluation says of each measure, by its name."""
        network = {name: told for name, told in self.network.items() if name != "spatial"}
        manifolds = {
            **network,
            "neighbours": manifold.NEIGHBOURS,
            "distances": "squared, of features in float32",
        }
        told = {self.frechet: network, self.precision: manifolds, self.recall: manifolds}
        if self.spatial:
            told[self.spatial] = {**network, "features": self.network["spatial"]}
        if self.score:
            splits = f"consecutive, of {inception_score.SPLIT} images, in the set's order"
            told[self.score] = {**network, "splits": splits, "classes": self.classes}
        return {name: told[name] for name in self.names}


def load_spaces(names: Sequence[str], *, lpips_dir: str, weights_dir: str) -> tuple[Space, ...]:
    """Reads the networks that the named measures need.

    Args:
      names: of NAMES.
      lpips_dir: of the LPIPS weights, which hold VGG16's; "": inside their package.
      weights_dir: of Inception's weights; "": this program's cache.

    Returns:
      Inception's space, VGG16's, or both, in this order.

    Raises:
      FileNotFoundError: weights are not there; says how to get them.
      ValueError: they are damaged, or a name is unknown, or there is none.
    """
    for name in names:
        if name not in NAMES:
            near = suggestion(name, NAMES)
            raise ValueError(
                f"{name!r} is no measure of samples; expected one of {', '.join(NAMES)}{near}."
            )
    if not names:
        raise ValueError(f"no measure is named; expected some of {', '.join(NAMES)}.")
    spaces = []
    if set(names) & set(INCEPTION_NAMES):
        spaces.append(inception_space(weights_dir))
    if set(names) & set(VGG_NAMES):
        spaces.append(vgg_space(lpips_dir))
    return tuple(spaces)


def measurable(weights_dir: str) -> tuple[tuple[str, ...], str]:
    """The measures of the best space that there are weights for.

    Args:
      weights_dir: as load_spaces's.

    Returns:
      The names, and a sentence where they are not those of the literature, else "".
    """
    try:
        inception_weights.find(weights_dir)
    except FileNotFoundError as error:
        return VGG_NAMES, (
            "Samples are measured in VGG16's feature space: these are not FID, precision and "
            f"recall of the literature, and not to be compared with them. {error}"
        )
    return INCEPTION_NAMES, ""


def inception_space(directory: str = "") -> Space:
    """The space of ADM's evaluator, by the published weights.

    Args:
      directory: of the weights; "": this program's cache.

    Returns:
      A Space.

    Raises:
      FileNotFoundError: the weights are not there; says how to get them.
      ValueError: they are not the published ones.
    """
    network, classifier = inception_weights.load_network(directory)
    return inception_space_of(network, classifier, inception_weights.SHA256)


def inception_space_of(network: dict, classifier: Any, sha256: str) -> Space:
    """Inception's space by any weights.

    Args:
      network: in the structure of inception.weight_shapes.
      classifier: f32[2048, C], of the logits.
      sha256: of the weights, for the protocol.

    Returns:
      A Space.
    """
    told = {
        "weights": sha256,
        "features": f"pool3, {inception.DIM} dimensions",
        "spatial": f"mixed_6/conv, first {inception.SPATIAL_CHANNELS} channels, "
        f"{inception.SPATIAL_DIM} dimensions",
        "resize": "bilinear to 299 x 299 as TensorFlow 1, no half-pixel centres, not antialiased",
        "input": "(x - 128) / 128",
    }
    dims = inception.DIM, inception.SPATIAL_DIM, classifier.shape[1]
    weights = {"network": network, "classifier": classifier}
    named = {"frechet": "gfid", "precision": "precision", "recall": "recall"}
    named |= {"spatial": "sfid", "score": "inception_score"}
    return Space(**named, **_sizes(*dims), function=_inception, weights=weights, network=told)


def vgg_space(directory: str = "") -> Space:
    """VGG16's space, by the weights that LPIPS is published with.

    Args:
      directory: of the weights; "": inside their package.

    Returns:
      A Space.

    Raises:
      FileNotFoundError: the weights are not there; says how to get them.
      ValueError: they are not the published ones.
    """
    dim = lpips.weight_shapes("vgg")["relu5_3"]["linear"].shape[0]
    told = {
        "weights": lpips_weights.FILES["vgg"].sha256,
        "features": f"relu5_3 averaged over positions, {dim} dimensions",
    }
    named = {"frechet": "frechet_vgg", "precision": "precision_vgg", "recall": "recall_vgg"}
    named |= {"spatial": "", "score": ""}
    weights = lpips_weights.load_weights("vgg", directory)
    return Space(**named, **_sizes(dim, 0, 0), function=_vgg, weights=weights, network=told)


def _sizes(dim, spatial_dim, classes):
    return {"dim": dim, "spatial_dim": spatial_dim, "classes": classes}


def _inception(weights, images):
    """As the published graph sees images, and as ADM's evaluator reads it."""
    x = resize_as_tensorflow_1(images.astype(jnp.float32), inception.SIDE)
    pool, spatial = inception.inception_activations(weights["network"], (x - 128) / 128)
    kernel = weights["classifier"]
    return Activations(pool, spatial, jnp.matmul(pool, kernel, precision=jax.lax.Precision.HIGHEST))


def _vgg(weights, images):
    return Activations(lpips.features(weights, from_uint8(images), net="vgg"))
