"""The checkpoint that a mode takes unasked."""

import json

import pytest
import runs

from mq_jax.training import restored


@pytest.mark.parametrize(
    "changes, file, told",
    [
        ({}, False, False),
        ({"discriminator__weight": 0.5, "discriminator__start": 0.5}, False, True),
        ({"discriminator__weight": 0.5, "discriminator__ramp": 0.1}, False, True),
        ({"discriminator__weight": 0.5, "discriminator__start": 0.5}, True, False),
        # It has the whole weight in every step, which no file says.
        ({"discriminator__weight": 0.5, "discriminator__start": 0.0}, False, False),
    ],
)
def test_a_run_that_does_not_know_where_its_adversarial_term_is_whole_is_told_of(
    changes, file, told, tmp_path, caplog
):
    config = runs.configure(**{"discriminator__ramp": 0.0, **changes})
    if file:
        (tmp_path / "settled.json").write_text(json.dumps({"settled": 6}))
    restored._tell_of_before(tmp_path, config)
    assert ("may be one before the whole weight" in caplog.text) is told
