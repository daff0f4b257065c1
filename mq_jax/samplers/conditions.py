"""What a draw is asked for, held to what a prior knows before anything is compiled."""

from collections.abc import Sequence

import numpy as np

from mq_jax.generation.sampling import Sampling
from mq_jax.generation.space import TokenSpace
from mq_jax.samplers.restored import RestoredPrior
from mq_jax.tokenizers.tokenizer import Tokenizer


def class_labels(restored: RestoredPrior, classes: int | Sequence[int]) -> np.ndarray:
    """The label of each image.

    Args:
      restored: the prior.
      classes: the class of each image; or how many images of no class.

    Returns:
      i32[N], `space.null` for none.

    Raises:
      ValueError: the prior does not know such a class, or cannot do without one.
    """
    space = restored.space
    if np.ndim(classes) == 0:
        if not _is_whole(classes) or classes < 0:
            raise ValueError(f"The number of images is {classes!r}; expected at least 0.")
        _require_null(restored, "images of no class")
        return np.full(classes, space.null, np.int32)
    labels = np.asarray(classes)
    if not space.classes:
        raise ValueError("The prior knows no classes; expected how many images to draw.")
    whole = labels.ndim == 1 and (np.issubdtype(labels.dtype, np.integer) or not labels.size)
    if not whole or (labels.size and not 0 <= labels.min() <= labels.max() < space.classes):
        raise ValueError(
            f"Classes are {labels.dtype}{list(labels.shape)} {np.unique(labels)[:8].tolist()}; "
            f"expected whole numbers [N] in [0, {space.classes})."
        )
    return labels.astype(np.int32)


def require_guidance(restored: RestoredPrior, sampling: Sampling) -> None:
    """Raises where guidance is asked for that the prior has not learnt.

    Args:
      restored: the prior.
      sampling: settings of the draw.

    Raises:
      ValueError: it has no classes, or never saw an image without its class.
    """
    if sampling.guidance == 1:
        return
    if not restored.space.classes:
        raise ValueError(
            f"Guidance is {sampling.guidance} and the prior knows no classes; expected 1, none."
        )
    _require_null(restored, f"guidance {sampling.guidance}, which leads away from those,")


def given_tokens(
    space: TokenSpace, tokenizer: Tokenizer, given: np.ndarray, known: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """What a completion begins with.

    Args:
      space: of the tokens.
      tokenizer: that makes them.
      given: tokens, or images that it encodes.
      known: bool[h, w] or bool[B, h, w].

    Returns:
      (i32[B, n, J], bool[B, n]).

    Raises:
      ValueError: shapes, types or values do not fit.
    """
    given, known = np.asarray(given), np.asarray(known)
    grid = space.height, space.width
    shape = grid + ((tokenizer.depth,) if tokenizer.depth else ())
    sides = tuple(side * tokenizer.downsampling for side in grid)
    if given.shape[1:] == (*sides, 3):
        given = tokenizer.encode(given)
    if given.shape[1:] != shape or not np.issubdtype(given.dtype, np.integer):
        raise ValueError(
            f"What is given is {given.dtype}{list(given.shape)}; expected tokens i[B, "
            f"{', '.join(map(str, shape))}] or images [B, {sides[0]}, {sides[1]}, 3]."
        )
    space.check_range(given, None)
    if known.shape not in (grid, (len(given), *grid)) or known.dtype != bool:
        raise ValueError(
            f"Known places are {known.dtype}{list(known.shape)}; expected bool{list(grid)} or "
            f"bool[{len(given)}, {grid[0]}, {grid[1]}]."
        )
    known = np.broadcast_to(known, (len(given), *grid)).reshape(-1, space.places)
    return given.reshape(-1, space.places, space.levels).astype(np.int32), known


def _require_null(restored, what) -> None:
    """Raises where a prior with classes never learnt images without one."""
    if restored.space.classes and not restored.config.prior.class_dropout:
        raise ValueError(
            f"The prior was trained with class_dropout 0, so it knows no images without their "
            f"class; expected a class of each image instead of {what} and no guidance."
        )


def _is_whole(value) -> bool:
    return np.issubdtype(np.asarray(value).dtype, np.integer)
