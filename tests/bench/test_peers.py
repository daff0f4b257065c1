"""The net beside ours in PyTorch: what it is asked for, and that it is the same one."""

import importlib.util

import jax
import numpy as np
import pytest
import runs

from mq_jax.bench import peers
from mq_jax.training.build import build
from mq_jax.training.first import init_state


def test_without_pytorch_one_line_says_so(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(SystemExit, match="compares with PyTorch, which is not installed here"):
        peers.bench_peers(runs.configure(), rounds=1, cores=1)


def test_another_net_than_the_restated_one_is_refused(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: True)
    config = runs.configure(**{"codebook.kind": "linear"})
    with pytest.raises(SystemExit, match=r"config.codebook.kind is 'linear'; expected 'mlp'"):
        peers.bench_peers(config, rounds=1, cores=1)


def test_its_parameters_are_as_many_and_it_steps_encodes_and_decodes():
    pytest.importorskip("torch")
    from mq_jax.bench.peer import Net, peer_functions

    config = runs.configure(**{"codebook.kind": "mlp"})
    state = jax.eval_shape(lambda: init_state(build(config, steps=1), config))
    theirs = sum(leaf.numel() for leaf in Net(config).parameters())
    assert theirs == sum(leaf.size for leaf in jax.tree.leaves(state.params))
    size = config.data.image_size
    pixels = np.zeros((2, size, size, 3), np.uint8)
    functions = peer_functions(config, pixels, threads=1)
    for program in ("PyTorch", "PyTorch, channels last"):
        functions[program, "joint"]()
        assert functions[program, "decode"]().shape == pixels.shape
        assert functions[program, "encode"]().shape == (2, size // 4, size // 4)
