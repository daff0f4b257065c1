"""The table of all codewords."""

import jax
import numpy as np
import pytest
from kinds import KINDS

from mq_jax.quantizers.table import codewords


@pytest.mark.parametrize("kind", ["vq", "l2", "simvq", "fsq", "lfq"])
def test_every_code_is_a_row_in_its_place(kind):
    quantizer = KINDS[kind]()
    folded = quantizer.fold(*quantizer.init(jax.random.key(0)))
    found = codewords(quantizer, folded)
    assert found.shape == (quantizer.size, quantizer.dim)
    codes = np.array([3, 0, quantizer.size - 1])
    np.testing.assert_array_equal(found[codes], quantizer.decode(folded, codes))


def test_several_codes_a_position_have_no_table():
    quantizer = KINDS["residual"]()
    folded = quantizer.fold(*quantizer.init(jax.random.key(0)))
    with pytest.raises(ValueError, match="A position has 3 codes; expected one"):
        codewords(quantizer, folded)
    assert codewords(quantizer.inner, folded[1]).shape == (16, 4)
