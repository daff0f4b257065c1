"""A trained prior in use: images of classes, and the rest of images of which a part is known."""

from __future__ import annotations

import functools
import os
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from mq_jax.devices import sharding
from mq_jax.devices.places import local_path
from mq_jax.generation.sampling import Sampling
from mq_jax.priors.facts import read_facts
from mq_jax.samplers.conditions import class_labels, given_tokens, require_guidance
from mq_jax.samplers.decoder import find_tokenizer
from mq_jax.samplers.export import restored_of
from mq_jax.samplers.export_reading import is_exported, read_prior
from mq_jax.samplers.restored import RestoredPrior, fingerprint_of, restored_prior
from mq_jax.tokenizers.tokenizer import Tokenizer

# Images that are drawn at once, over all devices.
BATCH_SIZE = 64

USUAL = Sampling()


class Drawn(NamedTuple):
    """Images of a draw.

    Attributes:
      tokens: i32[B, h, w] in [0, K), with J codes a place i32[B, h, w, J].
      images: u8[B, H, W, 3].
    """

    tokens: np.ndarray
    images: np.ndarray


def load_prior(
    path: str | os.PathLike,
    *,
    step: int | None = None,
    tokenizer: str | os.PathLike | None = None,
) -> Sampler:
    """Loads a prior, to draw from it; runs no code of the files.

    Args:
      path: the folder of the run of a prior; or its export, the folder or the safetensors file.
      step: of the checkpoint; None: the best, or that of the export.
      tokenizer: that made its tokens, an export or a run that has one; None: where the run's
        configuration names it. An export names none.

    Returns:
      A Sampler, on all devices of this process.

    Raises:
      FileNotFoundError: the run, the export or the tokenizer is not there.
      ValueError: what is there is of something else or damaged, there is no such checkpoint, or the
        tokenizer is another one.
    """
    mesh = sharding.make_mesh(devices=jax.local_devices())
    if is_exported(path):
        export = read_prior(path)
        if step not in (None, export.step):
            raise ValueError(
                f"{path} is the export of step {export.step}; expected it, not {step}."
            )
        restored, facts, place = restored_of(export), export.facts, ""
    else:
        restored = restored_prior(path, step, mesh)
        facts = read_facts(local_path(path, "The run of a prior"))
        place = restored.config.tokens
    found = find_tokenizer(place if tokenizer is None else tokenizer, facts.tokenizer)
    return Sampler(restored, found, facts.class_names, mesh)


class Sampler:
    """Draws from a prior, and decodes what it drew.

    An image depends on the seed, on its number and on its class, not on the batch that it is drawn
    in; programs of other batch sizes add in another order, which can tip a token. Each batch size
    and each Sampling compile once.

    Args:
      restored: the prior.
      tokenizer: that made its tokens.
      class_names: of its classes.
      mesh: whose devices share a batch.

    Attributes:
      prior: over the tokens, with its `space`.
      tokenizer: see above.
      class_names: see above.
      restored: see above.
      step: of the checkpoint.
    """

    def __init__(
        self,
        restored: RestoredPrior,
        tokenizer: Tokenizer,
        class_names: Sequence[str],
        mesh: Mesh,
    ):
        self.prior, self.tokenizer, self.step = restored.prior, tokenizer, restored.step
        self.class_names, self.restored = tuple(class_names), restored
        self._mesh, everywhere = mesh, sharding.replicated(mesh)
        self._params = jax.device_put(restored.params, everywhere)
        self._weights = jax.device_put(tokenizer.weights, everywhere)
        self._tokens = jax.jit(self._split_tokens, static_argnames=("sampling", "front"))
        self._images = jax.jit(self._on_each_device(tokenizer.coding.decode, shared=1, split=1))

    def __repr__(self) -> str:
        space, classes = self.prior.space, len(self.class_names)
        return (
            f"Sampler({self.kind} prior, step {self.step}, "
            f"{' x '.join(map(str, self._shape))} codes of {space.size}, classes={classes})"
        )

    @property
    def kind(self) -> str:
        """autoregressive or masked."""
        return self.restored.config.prior.kind

    @functools.cached_property
    def fingerprint(self) -> str:
        """The sha256 of the prior's architecture and parameters."""
        return fingerprint_of(self.restored)

    def sample(
        self,
        classes: int | Sequence[int],
        seed: int,
        *,
        sampling: Sampling = USUAL,
        batch_size: int = BATCH_SIZE,
    ) -> Drawn:
        """Draws images.

        Args:
          classes: the class of each, by its number; or how many images of no class.
          seed: of the draw.
          sampling: how tokens are drawn.
          batch_size: images at once; rounded up to a multiple of the devices.

        Returns:
          A Drawn.

        Raises:
          ValueError: classes that the prior does not know, or it cannot do without them; or
            guidance without classes.
        """
        labels = class_labels(self.restored, classes)
        return self._joined(self.batches(labels, seed, sampling=sampling, batch_size=batch_size))

    def complete(
        self,
        given: np.ndarray,
        known: np.ndarray,
        seed: int,
        *,
        classes: Sequence[int] | None = None,
        sampling: Sampling = USUAL,
        batch_size: int = BATCH_SIZE,
    ) -> Drawn:
        """Draws what is not known of images.

        An autoregressive prior tells a known place to those after it alone, a masked one to all.

        Args:
          given: tokens i[B, h, w] or i[B, h, w, J], or images u8[B, H, W, 3] or floats in [-1, 1],
            which are encoded.
          known: bool[h, w], or bool[B, h, w], places whose tokens stay.
          seed: of the draw.
          classes: the class of each image; None: of none.
          sampling: how tokens are drawn.
          batch_size: as sample's.

        Returns:
          A Drawn; where an image was given, known places show what the tokenizer makes of it.

        Raises:
          ValueError: shapes, types or values do not fit, or as sample.
        """
        tokens, known = given_tokens(self.prior.space, self.tokenizer, given, known)
        labels = class_labels(self.restored, len(tokens) if classes is None else classes)
        if len(labels) != len(tokens):
            raise ValueError(f"There are {len(labels)} classes; expected {len(tokens)}, one each.")
        settings = {"sampling": sampling, "batch_size": batch_size}
        return self._joined(self.batches(labels, seed, completion=(tokens, known), **settings))

    def batches(
        self,
        labels: np.ndarray,
        seed: int,
        *,
        sampling: Sampling,
        batch_size: int,
        completion: tuple[np.ndarray, np.ndarray] | None = None,
        wanted: Collection[int] | None = None,
    ) -> Iterator[tuple[int, Drawn]]:
        """Draws batch by batch, the next of which is computed meanwhile.

        Args:
          labels: i32[N], the class of each image, `space.null` for none.
          seed: of the draw.
          sampling: how tokens are drawn.
          batch_size: as sample's.
          completion: (i32[N, n, J], bool[N, n]), tokens and which of them stay.
          wanted: numbers of images; batches without any of them are left out. A batch is whole
            otherwise, so that its images are those of a draw that was not interrupted.

        Yields:
          (number of the first, a Drawn of all images of the batch).

        Raises:
          ValueError: there is guidance that the prior cannot give, or no batch.
        """
        require_guidance(self.restored, sampling)
        if batch_size < 1:
            raise ValueError(f"The batch size is {batch_size}; expected at least 1.")
        key, devices = jax.random.key(seed), self._mesh.size
        settings = {"sampling": sampling, "front": self._front(completion)}
        rows = -(-min(batch_size, max(len(labels), 1)) // devices) * devices
        sent = None
        for first in range(0, len(labels), rows):
            count = min(rows, len(labels) - first)
            if wanted is not None and not any(n in wanted for n in range(first, first + count)):
                continue
            given = self._rows(first, rows, labels, completion)
            tokens = self._tokens(self._params, key, *given, **settings)
            computed = first, count, tokens, self._images(self._weights, self._in_grid(tokens))
            if sent is not None:
                yield self._home(*sent)
            sent = computed
        if sent is not None:
            yield self._home(*sent)

    @property
    def _shape(self) -> tuple[int, ...]:
        """Of an image's tokens, as the tokenizer has them."""
        space, depth = self.prior.space, self.tokenizer.depth
        return (space.height, space.width, *((depth,) if depth else ()))

    def _front(self, completion) -> int:
        """Places of the upper rows that all images have: whole rows, as each number compiles."""
        # A masked prior tells known places to all others, wherever they are.
        if completion is None or not len(completion[1]) or self.kind == "masked":
            return 0
        height, width = self._shape[:2]
        rows = completion[1].reshape(-1, height, width).all(axis=(0, 2))
        return width * int(np.cumprod(rows).sum())

    def _in_grid(self, tokens):
        return tokens.reshape(len(tokens), *self._shape)

    def _rows(self, first, rows, labels, completion):
        """(numbers, labels, tokens, known) of a batch on the devices; the last is filled up."""
        numbers = np.arange(first, first + rows, dtype=np.int32)
        # Those beyond the end repeat the last one; nobody looks at them.
        own = np.minimum(numbers, len(labels) - 1)
        classes = labels[own] if self.prior.space.classes else None
        parts = (None, None) if completion is None else (part[own] for part in completion)
        return sharding.shard_batch(self._mesh, (numbers, classes, *parts))

    def _split_tokens(self, params, key, numbers, labels, given, known, *, sampling, front):
        """Tokens of a batch, each device's rows by itself."""

        def drawn(params, key, numbers, labels, given, known):
            some = {"given": given, "known": known, "front": front}
            return self.prior.sample(params, numbers, labels, key, sampling, **some)

        draw = self._on_each_device(drawn, shared=2, split=4)
        return draw(params, key, numbers, labels, given, known)

    def _on_each_device(self, function, *, shared, split):
        """A function of whole arrays and then of rows, on the rows of each device."""
        rows = PartitionSpec(sharding.AXES)
        specs = (*[PartitionSpec()] * shared, *[rows] * split)
        # Loops start from constants, which are the same everywhere.
        return jax.shard_map(
            function, mesh=self._mesh, in_specs=specs, out_specs=rows, check_vma=False
        )

    def _home(self, first, count, tokens, images) -> tuple[int, Drawn]:
        """A computed batch on the host, without what fills it up."""
        tokens = np.asarray(self._in_grid(tokens))[:count]
        return first, Drawn(tokens, np.asarray(images)[:count])

    def _joined(self, batches) -> Drawn:
        """All batches of a draw as one."""
        drawn = [found for _, found in batches]
        if not drawn:
            side = [side * self.tokenizer.downsampling for side in self._shape[:2]]
            none = np.zeros((0, *self._shape), np.int32), np.zeros((0, *side, 3), np.uint8)
            return Drawn(*none)
        return Drawn(*map(np.concatenate, zip(*drawn, strict=True)))
