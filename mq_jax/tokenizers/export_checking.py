"""What a file says that it exports, held against what its architecture asks for and its hashes."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from mq_jax.images.transforms import FILTERS
from mq_jax.runs.orbax_noise import one_line
from mq_jax.storage.schema import AMOUNT, ANY, FLAG, SHA256, check, choice, shown, whole
from mq_jax.tokenizers.architecture import OWN_FIELDS, USUAL, config_of, folded_shapes, quantizer_of
from mq_jax.tokenizers.coding import Weights
from mq_jax.tokenizers.export import (
    QUANTIZER_VERSION,
    VERSION,
    Export,
    digest,
    fingerprint,
    folded_by_name,
    named,
    version_of,
)
from mq_jax.training.agreeing import shape_problems
from mq_jax.training.build import make_autoencoder
from mq_jax.training.quantizing import KINDS

REMEDY = "export the model again, or copy the whole file again"


def _widths(least: int, most: int):
    """The rule of a list of numbers, a level of a model each."""
    number = whole(1, most)
    return (
        f"a list of {least} to 16 whole numbers in [1, {most}]",
        lambda value: (
            isinstance(value, list)
            and least <= len(value) <= 16
            and all(number[1](width) for width in value)
        ),
    )


# Far beyond what was ever trained, and near enough that a model's shapes are found in seconds.
_HEADER = {
    "version": ANY,
    "fingerprint": SHA256,
    "preparation_sha256": SHA256,
    "preparation": {
        "image_size": whole(1, 2**16),
        "crop": whole(0, 2**16),
        "resize": FLAG,
        "filter": choice(*FILTERS),
    },
    "architecture": {
        "model": {
            "kind": choice("vqvae", "vqgan", "maskgit"),
            "channels": _widths(1, 2**14),
            "multipliers": _widths(1, 2**10),
            "blocks": whole(0, 64),
            "attention": _widths(0, 2**16),
            "z_channels": whole(1, 2**16),
            "groups": whole(1, 2**14),
            "layer_norm": FLAG,
            "init_std": AMOUNT,
            "dtype": choice("float32", "bfloat16"),
            "remat": FLAG,
        },
        "codebook": {
            "size": whole(1, 2**31),
            "dim": whole(1, 2**16),
            "lookup_chunk": whole(0, 2**31),
        },
        "data": {"image_size": whole(1, 2**16)},
    },
}

_VERSIONS = (VERSION, QUANTIZER_VERSION)
_QUANTIZER = {
    "kind": choice(*KINDS),
    "groups": whole(1, 2**10),
    "depth": whole(1, 2**10),
    "shared": FLAG,
}


def require_header(header: Any, origin: Any) -> None:
    """Raises unless a header describes a model and the preparation of its images.

    Args:
      header: of JSON; expected as Export.header.
      origin: the file, for messages.

    Raises:
      ValueError: the version is unknown, or a field is missing or of another kind.
    """
    if isinstance(header, Mapping) and header.get("version") not in _VERSIONS:
        version = shown(header["version"]) if "version" in header else "unknown"
        raise ValueError(
            f"{origin} is of version {version}; expected {VERSION} or {QUANTIZER_VERSION}. "
            "Read it with the mq_jax that wrote it, or export it again."
        )
    try:
        check(header, _HEADER, "its header")
        model = header["architecture"]["model"]
        later = {name: FLAG for name in USUAL if name in model}
        check(model, later, "its header.architecture.model")
        _check_quantizer(header)
    except ValueError as error:
        raise damage(origin, str(error)) from error


def require_arrays(header: Mapping[str, Any], declared: Mapping[str, Any], origin: Any) -> None:
    """Raises unless the arrays that a file declares are those of its architecture.

    Args:
      header: from require_header.
      declared: (shape, dtype's name) by name, before any array is read.
      origin: the file, for messages.

    Raises:
      ValueError: an array is missing, too many, or of another shape or type.
    """
    try:
        wanted = _arrays_of(header["architecture"])
    # Flax raises what it likes for widths that do not divide and levels that do not fit.
    except Exception as error:
        raise damage(origin, f"its architecture makes no model ({one_line(error)})") from error
    require_declared(wanted, declared, origin)


def require_declared(
    wanted: Mapping[str, tuple], declared: Mapping[str, tuple], origin: Any
) -> None:
    """Raises unless a file declares the arrays that are wanted, and no others.

    Args:
      wanted: (shape, dtype's name) by name.
      declared: likewise.
      origin: the file, for messages.

    Raises:
      ValueError: names the first difference.
    """
    for name in sorted({*wanted, *declared}):
        own = declared.get(name)
        if own != wanted.get(name):
            told = " ".join(str(part) for part in own) if own else "missing"
            asked = " ".join(str(part) for part in wanted[name]) if name in wanted else "no array"
            raise damage(origin, f"{shown(name)} is {told}; its architecture has {asked}")


def require_fingerprint(found: str, said: str, origin: Any) -> None:
    """Raises unless the content of a file is that which was exported.

    Args:
      found: fingerprint of the content.
      said: of the header.
      origin: the file, for messages.

    Raises:
      ValueError: they differ.
    """
    if found != said:
        raise damage(
            origin,
            f"its content has the fingerprint {found[:16]}..., its header says {said[:16]}...",
        )


def damage(origin: Any, reason: str) -> ValueError:
    """The error of a file that is not as it was written, for this reason."""
    return ValueError(f"{origin} is damaged or was edited: {reason}; {REMEDY}.")


def from_named(header: Mapping[str, Any], arrays: Mapping[str, np.ndarray], origin: Any) -> Export:
    """An Export from what a file holds, its hashes checked.

    Args:
      header: from require_header.
      arrays: those of require_arrays, as `named` returns them.
      origin: the file, for messages.

    Returns:
      The Export.

    Raises:
      ValueError: the content is not that which was exported.
    """
    found = fingerprint(header["architecture"], arrays)
    require_fingerprint(found, header["fingerprint"], origin)
    # Not part of the fingerprint: the same model may be fed otherwise.
    if digest(header["preparation"]) != header["preparation_sha256"]:
        raise damage(origin, "its preparation of images is not the one that was exported")
    nested = traverse_util.unflatten_dict(dict(arrays), sep="/")
    folded = folded_by_name(arrays, folded_shapes(quantizer_of(header["architecture"])))
    weights = Weights(nested["theta"], nested.get("batch_stats", {}), folded)
    return Export(header["architecture"], header["preparation"], weights, header["fingerprint"])


def _check_quantizer(header: Mapping[str, Any]) -> None:
    """Raises unless the fields of a quantizer are right, and of the version that has them."""
    architecture = header["architecture"]
    place = "its header.architecture.quantizer"
    if "quantizer" in architecture:
        check(architecture["quantizer"], _QUANTIZER, place)
        kind = architecture["quantizer"]["kind"]
        own = {kind: OWN_FIELDS[kind]} if kind in OWN_FIELDS else {}
        check(architecture["quantizer"], own, place)
    if header["version"] != version_of(architecture):
        raise ValueError(
            f"its header.version is {header['version']}; expected {version_of(architecture)}, as "
            f"its architecture has {'a' if 'quantizer' in architecture else 'no'} quantizer"
        )


def _arrays_of(architecture: Mapping[str, Any]) -> dict[str, tuple[list[int], str]]:
    """The arrays of an architecture; nothing is computed."""
    config = config_of(architecture)
    for problem in shape_problems(config):
        raise ValueError(problem)
    side, autoencoder = config.data.image_size, make_autoencoder(config)
    images = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    key = jax.random.key(0)
    variables = jax.eval_shape(lambda x: autoencoder.init(key, x, train=False), images)
    folded = folded_shapes(quantizer_of(architecture))
    weights = Weights(variables["params"], variables.get("batch_stats", {}), folded)
    return {name: (list(leaf.shape), leaf.dtype.name) for name, leaf in named(weights).items()}
