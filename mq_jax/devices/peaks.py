"""What accelerators can do at most, from their makers' data sheets: products and links."""

import re
from typing import NamedTuple

import jax


class Peak(NamedTuple):
    """One kind of device.

    Attributes:
      bfloat16: TFLOP/s of dense convolutions and products, sums in float32.
      float32: likewise, as JAX computes them by default: TF32 on GPUs, bfloat16 on TPUs.
      link: GB/s (of 10^9 bytes) that a device sends to the others of its machine; 0: not told.
      network: GB/s that it sends to other machines, in its maker's own of eight; 0: not told.
      full: TFLOP/s of float32 whose factors are not rounded, as of Precision.HIGHEST; 0: not told.
    """

    bfloat16: float
    float32: float
    link: float = 0
    network: float = 0
    full: float = 0

    def of(self, dtype: str) -> float:
        """TFLOP/s of a dtype, "bfloat16" or "float32"."""
        return self.bfloat16 if dtype == "bfloat16" else self.float32


# By words of JAX's name of the device, the first that matches. NVIDIA's data sheets of the B200
# (2024), H200 (2024), H100 (2023), A100 (2021), L40S (2023) and L4 (2023), halves of what they
# print for sparse products and of what NVLink carries both ways; of its DGX machines, with 400
# (A100: 200) Gbit/s to a GPU; Google's pages of TPU versions.
PEAKS = {
    "B200": Peak(2250, 1125, link=900, network=50),
    "H200": Peak(989, 494, link=450, network=50, full=67),
    "H100 PCIe": Peak(756, 378),
    "H100": Peak(989, 494, link=450, network=50, full=67),
    "A100": Peak(312, 156, link=300, network=25, full=19.5),
    "L40S": Peak(362, 183),
    "L4": Peak(121, 60),
    "TPU v6 lite": Peak(918, 918),
    "TPU v5 lite": Peak(197, 197),
    "TPU v5": Peak(459, 459),
    "TPU v4": Peak(275, 275),
}


def peak_of(device: jax.Device) -> Peak | None:
    """The peak of a device.

    Args:
      device: of any platform.

    Returns:
      A Peak; None for a kind that is not in the table, as every CPU.
    """
    kind = device.device_kind
    return next((peak for name, peak in PEAKS.items() if re.search(rf"\b{name}\b", kind)), None)
