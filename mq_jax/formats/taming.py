"""The form for taming-transformers: a checkpoint, and the configuration of its VQModel."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from mq_jax.formats.precision import precision
from mq_jax.formats.torch_zip import save_state_dict
from mq_jax.formats.vqgan import net_of_export, pixels, problem_of, state_of
from mq_jax.peers.names import TAMING as NAMES
from mq_jax.tokenizers.export import Export
from mq_jax.tokenizers.export_writing import Format

_READING = """With taming-transformers, pixels in {pixels}. {precision}

```python
from omegaconf import OmegaConf
from taming.models.vqgan import VQModel

params = OmegaConf.load("taming/config.yaml").model.params
model = VQModel(**params, ckpt_path="taming/model.ckpt").eval()
z_q, _, (_, _, indices) = model.encode(images)  # f32[B, 3, H, W] -> i64[B h w]
decoded = model.decode(z_q)  # f32[B, 3, H, W]
```
"""

# Of all nets there.
_GROUPS, _PIXELS = 32, "[-1, 1]"


def _problem(architecture: Mapping[str, Any]) -> str | None:
    """What of the net is no option there."""
    if problem := problem_of(architecture):
        return problem
    groups = architecture["model"]["groups"]
    if groups != _GROUPS:
        return f"its GroupNorm has {groups} groups, not {_GROUPS}"
    if not net_of_export(architecture).middle_attention:
        return "it has no attention at its lowest resolution (model.middle_attention)"
    if pixels(architecture) != _PIXELS:
        return f"its pixels are in {pixels(architecture)}, not {_PIXELS}"
    return None


def model_config(architecture: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a model.

    Args:
      architecture: of an export without a problem.

    Returns:
      A nested dict.
    """
    net, last = net_of_export(architecture), architecture["data"]["image_size"]
    # Its decoder counts from the lowest resolution up, its encoder down: of a multiple both agree.
    last >>= net.levels - 1
    resolution = max(last, 1) << (net.levels - 1)
    net_params = {
        "double_z": False,
        "z_channels": net.z_channels,
        "resolution": resolution,
        "in_channels": 3,
        "out_ch": 3,
        "ch": net.channels,
        "ch_mult": list(net.multipliers),
        "num_res_blocks": net.blocks,
        "attn_resolutions": [resolution >> level for level in net.attention],
        "dropout": 0.0,
    }
    params = {
        "embed_dim": net.dim,
        "n_embed": architecture["codebook"]["size"],
        "ddconfig": net_params,
        "lossconfig": {"target": "taming.modules.losses.DummyLoss"},
    }
    return {"model": {"target": "taming.models.vqgan.VQModel", "params": params}}


def _write(place: pathlib.Path, export: Export) -> None:
    """Writes config.yaml, in the part of YAML that is JSON, and the checkpoint."""
    place.mkdir()
    text = json.dumps(model_config(export.architecture), indent=2)
    (place / "config.yaml").write_text(text + "\n", encoding="utf-8")
    save_state_dict(place / "model.ckpt", state_of(export, NAMES))


def _reading(architecture):
    return _READING.format(pixels=_PIXELS, precision=precision(architecture))


TAMING = Format("taming", "taming", _problem, _write, _reading)
