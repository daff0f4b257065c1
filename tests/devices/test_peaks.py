"""Peaks of accelerators by JAX's names of them."""

import types

import pytest

from mq_jax.devices.peaks import PEAKS, peak_of


@pytest.mark.parametrize(
    "kind, name",
    [
        ("NVIDIA A100-SXM4-80GB", "A100"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA L40S", "L40S"),
        ("TPU v5 lite", "TPU v5 lite"),
        ("TPU v5", "TPU v5"),
        ("NVIDIA L40", None),
        ("NVIDIA GH200 480GB", None),
        ("cpu", None),
    ],
)
def test_a_device_is_known_by_the_words_of_its_name(kind, name):
    assert peak_of(types.SimpleNamespace(device_kind=kind)) is (name and PEAKS[name])


def test_float32_is_half_of_bfloat16_on_gpus_and_the_same_on_tpus():
    for name, peak in PEAKS.items():
        ratio = peak.of("bfloat16") / peak.of("float32")
        assert ratio == pytest.approx(1 if name.startswith("TPU") else 2, rel=0.02), name
