"""What an evaluation measures beside MSE, PSNR and the use of the codes: names, weights, functions.

`fid` is the Fréchet distance in the feature space of the Inception network of 2015, between
originals and reconstructions (rFID). `frechet_vgg` is the same formula in VGG16's feature space:
another number, for where Inception's weights are not at hand.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mq_jax.metrics.perceptual import perceptual_distance
from mq_jax.metrics.ssim import SMALLEST, ssim_per_image
from mq_jax.models import inception, inception_weights, lpips, lpips_weights
from mq_jax.terminal.spelling import suggestion

# In the order in which they are reported.
NAMES = ("ssim", "lpips_alex", "lpips_vgg", "fid", "frechet_vgg")

# Those that can decide which checkpoint is best.
LOWER_IS_BETTER = ("lpips_alex", "lpips_vgg", "fid", "frechet_vgg")

# The least side of an image at which each is defined; the Fréchet distances resize or average.
SMALLEST_SIDE = {
    "ssim": SMALLEST,
    "lpips_alex": lpips.architecture("alex").minimum,
    "lpips_vgg": lpips.architecture("vgg").minimum,
    "fid": 1,
    "frechet_vgg": lpips.architecture("vgg").minimum,
}


class Features(NamedTuple):
    """The feature space of a Fréchet distance.

    Attributes:
      name: "fid" or "frechet_vgg".
      dim: its dimensions.
      function: (weights, images f32[B, H, W, 3] in [-1, 1]) -> f32[B, dim].
    """

    name: str
    dim: int
    function: Callable[[Any, jax.Array], jax.Array]


class Measures(NamedTuple):
    """Functions of images and reconstructions, and what they read.

    Attributes:
      per_image: (name, (weights, images, reconstructions) -> f32[B]) pairs; hashable.
      features: of the Fréchet distance, or None.
      weights: all that the functions read, one tree, on the host.
      card: what the protocol of an evaluation says of them, fit for JSON.
    """

    per_image: tuple[tuple[str, Callable], ...]
    features: Features | None
    weights: Any
    card: dict[str, Any]

    @property
    def free_features(self) -> Callable[[Any, jax.Array], jax.Array] | None:
        """The features' function where another measure passes the originals through its net."""
        own = self.features is not None and self.features.name == "frechet_vgg"
        shared = own and "lpips_vgg" in dict(self.per_image)
        return self.features.function if shared else None


def load_measures(names: Sequence[str], *, lpips_dir: str, weights_dir: str) -> Measures:
    """Reads the weights that the named measures need.

    Args:
      names: of NAMES; one Fréchet distance at most.
      lpips_dir: of the LPIPS weights; "": inside their package.
      weights_dir: of Inception's weights; "": inception_weights.weights_directory().

    Returns:
      A Measures.

    Raises:
      FileNotFoundError: weights are not there; says how to get them.
      ValueError: they are damaged, or a name is unknown.
    """
    return _measures(
        names,
        functools.partial(lpips_weights.load_weights, directory=lpips_dir),
        functools.partial(inception_weights.load_weights, weights_dir),
    )


def describe_measures(names: Sequence[str]) -> Measures:
    """The named measures, to be traced: they need no file.

    Args:
      names: as load_measures's.

    Returns:
      A Measures with jax.ShapeDtypeStructs for weights.

    Raises:
      ValueError: a name is unknown.
    """
    return _measures(names, lpips.weight_shapes, inception.weight_shapes)


def _measures(
    names: Sequence[str], lpips_of: Callable[[str], dict], inception_of: Callable[[], dict]
) -> Measures:
    """The named measures, with the weights that two functions give."""
    check_names(names)
    weights, card, per_image, features = {}, {}, [], None
    for name in [known for known in NAMES if known in names]:
        if name == "ssim":
            per_image.append((name, _ssim))
            card[name] = "Gaussian window 11 x 11, sigma 1.5, K1 0.01, K2 0.03, range 2"
        elif name.startswith("lpips_"):
            net = name.removeprefix("lpips_")
            weights[net] = lpips_of(net)
            per_image.append((name, _DISTANCES[name]))
            card[name] = {"weights": lpips_weights.FILES[net].sha256}
        elif name == "fid":
            weights["inception"] = inception_of()
            features = Features(name, inception.DIM, _inception)
            card[name] = {
                "weights": inception_weights.SHA256,
                "features": f"pool3, {inception.DIM} dimensions",
                "resize": "bilinear to 299 x 299, not antialiased",
            }
        else:
            if "vgg" not in weights:
                weights["vgg"] = lpips_of("vgg")
            features = Features(name, _VGG_DIM, _vgg)
            card[name] = {
                "weights": lpips_weights.FILES["vgg"].sha256,
                "features": f"relu5_3 averaged over positions, {_VGG_DIM} dimensions",
            }
    return Measures(tuple(per_image), features, weights, card)


def check_names(names: Sequence[str]) -> None:
    """Raises unless the names can be measured together.

    Args:
      names: of NAMES.

    Raises:
      ValueError: one is unknown, or there are two Fréchet distances.
    """
    for name in names:
        if name not in NAMES:
            near = suggestion(name, NAMES)
            raise ValueError(f"{name!r} is no measure; expected one of {', '.join(NAMES)}{near}.")
    if {"fid", "frechet_vgg"} <= set(names):
        raise ValueError("fid and frechet_vgg are measured one at a time; name one of them.")


def every_measure(side: int, weights_dir: str) -> tuple[list[str], list[str]]:
    """All that can be measured here.

    Args:
      side: of the images, pixels.
      weights_dir: as load_measures's.

    Returns:
      The names, and a sentence for each measure that is left out.
    """
    left_out, names = [], []
    try:
        inception_weights.find(weights_dir)
        names.append("fid")
    except FileNotFoundError as error:
        names.append("frechet_vgg")
        left_out.append(
            "The Fréchet distance is measured in VGG16's feature space: it is not FID, and not to "
            f"be compared with it. {error}"
        )
    names += ["ssim", "lpips_alex", "lpips_vgg"]
    for name in [name for name in NAMES if name in names and side < SMALLEST_SIDE[name]]:
        names.remove(name)
        left_out.append(
            f"{name} needs images of {SMALLEST_SIDE[name]} pixels; these have {side}: left out."
        )
    return [name for name in NAMES if name in names], left_out


def _ssim(weights, images, reconstructions):
    del weights
    return ssim_per_image(images, reconstructions)


def _distance(net):
    """LPIPS of what a viewer sees: reconstructions clipped; in full float32 on any device."""
    distance = perceptual_distance(net, precision=jax.lax.Precision.HIGHEST)

    def lpips_of(weights, images, reconstructions):
        return distance(weights[net], images, jnp.clip(reconstructions, -1, 1))

    return lpips_of


# One function object for each net, so that equal Measures compile once.
_DISTANCES = {f"lpips_{net}": _distance(net) for net in lpips.NETS}

_VGG_DIM = lpips.weight_shapes("vgg")["relu5_3"]["linear"].shape[0]


def _inception(weights, images):
    return inception.inception_features(weights["inception"], images)


def _vgg(weights, images):
    return lpips.features(weights["vgg"], images, net="vgg")
