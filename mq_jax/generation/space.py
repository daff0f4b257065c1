"""What tokens there are: the grid, its levels, the codes of a level, the classes."""

import dataclasses

import jax
import numpy as np


@dataclasses.dataclass(frozen=True)
class TokenSpace:
    """Tokens i32[B, n, J] in [0, K), n = h w places in row-major order, and labels i32[B].

    Attributes:
      height: h.
      width: w.
      levels: J, codes at one place: of residual levels, or of groups.
      size: K of a level.
      classes: of images; 0 where there are none.
    """

    height: int
    width: int
    levels: int
    size: int
    classes: int = 0

    def __post_init__(self):
        least = {"height": 1, "width": 1, "levels": 1, "size": 2, "classes": 0}
        for name, lowest in least.items():
            if getattr(self, name) < lowest:
                raise ValueError(
                    f"TokenSpace.{name} is {getattr(self, name)}; expected at least {lowest}."
                )

    @property
    def places(self) -> int:
        """n."""
        return self.height * self.width

    @property
    def null(self) -> int:
        """The label that stands for no class, behind all classes."""
        return self.classes

    def check(self, tokens: jax.Array, labels: jax.Array | None) -> None:
        """Holds shapes and types, which are known before anything is compiled, to this space.

        Args:
          tokens: i32[B, n, J].
          labels: i32[B], or None where there are no classes.

        Raises:
          ValueError: they are of another shape or type, or labels are missing or too many.
        """
        tail = (self.places, self.levels)
        if tokens.shape[1:] != tail or not np.issubdtype(tokens.dtype, np.integer):
            raise ValueError(
                f"Tokens are {tokens.dtype}{list(tokens.shape)}; expected whole numbers "
                f"[B, {tail[0]}, {tail[1]}], levels last."
            )
        self.check_labels(labels, len(tokens))

    def check_labels(self, labels: jax.Array | None, batch: int) -> None:
        """As check, of the labels of so many images.

        Args:
          labels: i32[B], or None where there are no classes.
          batch: B.

        Raises:
          ValueError: as check's.
        """
        if labels is None and self.classes:
            raise ValueError(
                f"There are {self.classes} classes and no labels; expected labels [{batch}], "
                f"{self.null} where an image has none."
            )
        if labels is None:
            return
        if labels.shape != (batch,) or not np.issubdtype(labels.dtype, np.integer):
            raise ValueError(
                f"Labels are {labels.dtype}{list(labels.shape)}; expected whole numbers [{batch}]."
            )

    def check_range(self, tokens: np.ndarray, labels: np.ndarray | None) -> None:
        """Holds values on the host to this space; a compiled program would clip them unseen.

        Args:
          tokens: i32[...].
          labels: i32[B] or None.

        Raises:
          ValueError: one lies outside.
        """
        for name, values, end in (("Tokens", tokens, self.size), ("Labels", labels, self.null + 1)):
            if values is None or not np.size(values):
                continue
            lowest, highest = np.min(values), np.max(values)
            if lowest < 0 or highest >= end:
                raise ValueError(
                    f"{name} lie in [{lowest}, {highest}]; expected them in [0, {end})."
                )
