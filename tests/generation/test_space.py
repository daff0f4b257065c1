"""What tokens and labels are refused."""

import numpy as np
import pytest

from mq_jax.generation.space import TokenSpace

SPACE = TokenSpace(2, 3, 2, 7, 3)
TOKENS, LABELS = np.zeros((4, 6, 2), np.int32), np.zeros(4, np.int32)


@pytest.mark.parametrize(
    "tokens, labels, message",
    [
        (TOKENS[:, :5], LABELS, r"expected whole numbers \[B, 6, 2\]"),
        (TOKENS.astype(float), LABELS, "Tokens are float64"),
        (TOKENS, None, "3 classes and no labels"),
        (TOKENS, LABELS[:3], r"Labels are int32\[3\]; expected whole numbers \[4\]"),
    ],
)
def test_other_shapes_and_types_are_refused(tokens, labels, message):
    SPACE.check(TOKENS, LABELS)
    with pytest.raises(ValueError, match=message):
        SPACE.check(tokens, labels)


@pytest.mark.parametrize(
    "tokens, labels, message",
    [
        (TOKENS + 7, LABELS, r"Tokens lie in \[7, 7\]; expected them in \[0, 7\)"),
        (TOKENS - 1, LABELS, r"Tokens lie in \[-1, -1\]"),
        (TOKENS, LABELS + 4, r"Labels lie in \[4, 4\]; expected them in \[0, 4\)"),
    ],
)
def test_codes_and_classes_that_are_none_are_refused(tokens, labels, message):
    SPACE.check_range(TOKENS + 6, LABELS + SPACE.null)
    with pytest.raises(ValueError, match=message):
        SPACE.check_range(tokens, labels)


def test_a_space_of_one_code_is_none():
    with pytest.raises(ValueError, match="TokenSpace.size is 1; expected at least 2"):
        TokenSpace(2, 2, 1, 1)
