"""The form for PyTorch alone: a module in a file of its own, which reads our safetensors."""

import pathlib
from importlib import resources

from mq_jax.formats.precision import precision
from mq_jax.tokenizers.export import Export
from mq_jax.tokenizers.export_writing import Format

_PLACE = "torch_tokenizer.py"

_READING = """With PyTorch alone, from `torch_tokenizer.py` and `tokenizer.safetensors`, which is
held against the fingerprint. {precision}

```python
from torch_tokenizer import load_tokenizer

tokenizer = load_tokenizer("tokenizer.safetensors")
indices = tokenizer.encode(images)  # u8[B, 3, H, W] -> i64[B, h, w{axis}]
decoded = tokenizer.decode(indices)  # u8[B, 3, H, W]
```
"""


def _reading(architecture):
    quantizer = architecture.get("quantizer", {"groups": 1, "depth": 1})
    count = quantizer["groups"] * quantizer["depth"]
    axis = f", {count}" if count > 1 else ""
    return _READING.format(precision=precision(architecture), axis=axis)


def _write(place: pathlib.Path, export: Export) -> None:
    """The module; the weights lie beside it in any case."""
    module = resources.files("mq_jax.formats").joinpath(_PLACE)
    place.write_bytes(module.read_bytes())


PYTORCH = Format("pytorch", _PLACE, lambda architecture: None, _write, _reading)
