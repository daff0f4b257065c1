"""How near other programs come to the numbers of ours."""

from collections.abc import Mapping
from typing import Any


def precision(architecture: Mapping[str, Any]) -> str:
    """What a card says of numbers that other programs compute.

    Args:
      architecture: of an export.

    Returns:
      A sentence.
    """
    if architecture["model"]["kind"] != "vqvae" and architecture["model"]["dtype"] != "float32":
        return (
            "It computes in float32, the trained model in bfloat16: encodings close to the middle "
            "of two codewords may have another code."
        )
    return "Encodings agree up to the order of float additions."
