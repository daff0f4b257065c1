"""The fields of a configuration that a tokenizer of others decides."""

from typing import Any

from mq_jax.peers.maskgit import FORMAT as MASKGIT
from mq_jax.peers.tokenizer import PeerTokenizer


def fields_of(peer: PeerTokenizer, image_size: int = 0) -> dict[str, dict[str, Any]]:
    """What a configuration says of a tokenizer.

    Args:
      peer: from read_peer.
      image_size: side of the images that it shall be used with, pixels; 0: as published.

    Returns:
      The whole of its section model, and fields of codebook, quantizer, data and, where the file
      has one, of the discriminator.

    Raises:
      ValueError: the side is no multiple of the downsampling.
    """
    net, side = peer.net, image_size or peer.usage.image_size
    factor = 2 ** (net.levels - 1)
    if side % factor:
        raise ValueError(
            f"the image size is {side}; expected a multiple of the downsampling, {factor}: "
            "--config.data.image_size."
        )
    model = {
        "kind": "maskgit" if peer.format == MASKGIT else "vqgan",
        "channels": (net.channels,),
        "multipliers": net.multipliers,
        "blocks": net.blocks,
        "attention": tuple(side >> level for level in net.attention),
        "middle_attention": net.middle_attention,
        "unit_pixels": peer.usage.unit_pixels,
        "z_channels": net.z_channels,
        "groups": peer.groups,
        "layer_norm": False,
        "init_std": 0.0,
        "dtype": "float32",
        "remat": False,
    }
    patches = {} if peer.patches is None else {**peer.patches._asdict(), "norm": "batch"}
    return {
        "model": model,
        "discriminator": patches,
        "codebook": {"kind": "embedding", "size": peer.size, "dim": net.dim},
        "quantizer": {"kind": peer.usage.quantizer, "groups": 1, "depth": 1, "shared": False},
        "data": {
            **{"image_size": side, "eval_image_size": 0, "crop": 0, "resize": True},
            "filter": peer.usage.filter,
        },
    }
