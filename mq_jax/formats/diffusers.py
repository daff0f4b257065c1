"""The form for `diffusers`: a folder that VQModel.from_pretrained opens."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import safetensors.numpy

from mq_jax.formats.precision import precision
from mq_jax.formats.vqgan import net_of_export, pixels, problem_of, state_of
from mq_jax.peers.names import DIFFUSERS as NAMES
from mq_jax.peers.usage import USAGE
from mq_jax.tokenizers.export import Export
from mq_jax.tokenizers.export_writing import Format

_READING = """With `diffusers`, pixels in {pixels}. {precision}

```python
from diffusers import VQModel

model = VQModel.from_pretrained("diffusers")
z = model.encode(images).latents  # f32[B, 3, H, W] -> f32[B, {dim}, h, w], not quantized
indices = model.quantize(z)[2][2].reshape(len(z), *z.shape[2:])  # i64[B, h, w]
shape = (*indices.shape, {dim})
decoded = model.decode(indices, force_not_quantize=True, shape=shape).sample  # f32[B, 3, H, W]
```
"""


def _problem(architecture: Mapping[str, Any]) -> str | None:
    """What of the net is no option there, or is not said there."""
    if problem := problem_of(architecture):
        return problem
    first = architecture["model"]["multipliers"][0]
    if first != 1:
        return f"its first level is {first} times as wide as the convolution before it"
    found, usual = pixels(architecture), _usual_pixels(architecture)
    if found != usual:
        return f"its pixels are in {found}; by its attention they would be taken for {usual}"
    return None


def _usual_pixels(architecture):
    """The range that a folder's pixels are taken to have, which has no place for it."""
    unit = USAGE["diffusers"](net_of_export(architecture)).unit_pixels
    return pixels({"model": {"unit_pixels": unit}})


def model_config(architecture: Mapping[str, Any]) -> dict[str, Any]:
    """The config.json of a model.

    Args:
      architecture: of an export without a problem.

    Returns:
      The arguments of VQModel.
    """
    net, model = net_of_export(architecture), architecture["model"]
    attends = ["Attn" if level in net.attention else "" for level in range(net.levels)]
    return {
        "_class_name": "VQModel",
        "in_channels": 3,
        "out_channels": 3,
        "down_block_types": [f"{attn}DownEncoderBlock2D" for attn in attends],
        "up_block_types": [f"{attn}UpDecoderBlock2D" for attn in reversed(attends)],
        "block_out_channels": list(net.widths),
        "layers_per_block": net.blocks,
        "act_fn": "silu",
        "latent_channels": net.z_channels,
        "sample_size": architecture["data"]["image_size"],
        "num_vq_embeddings": architecture["codebook"]["size"],
        "norm_num_groups": model["groups"],
        "vq_embed_dim": net.dim,
        "scaling_factor": 1.0,
        "norm_type": "group",
        "mid_block_add_attention": net.middle_attention,
        # What its `decode` does with what it is told not to quantize: it takes it for indices.
        "lookup_from_codebook": True,
        "force_upcast": False,
    }


def _write(place: pathlib.Path, export: Export) -> None:
    """Writes config.json and the weights beside it."""
    place.mkdir()
    text = json.dumps(model_config(export.architecture), indent=2)
    (place / "config.json").write_text(text + "\n", encoding="utf-8")
    # As save_pretrained writes it, for loaders that ask whose arrays they are.
    data = safetensors.numpy.save(state_of(export, NAMES), metadata={"format": "pt"})
    (place / "diffusion_pytorch_model.safetensors").write_bytes(data)


def _reading(architecture):
    dim = architecture["codebook"]["dim"]
    return _READING.format(pixels=pixels(architecture), precision=precision(architecture), dim=dim)


DIFFUSERS = Format("diffusers", "diffusers", _problem, _write, _reading)
