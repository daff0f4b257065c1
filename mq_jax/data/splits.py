"""Which images of a tree belong to a split: by the folder that they lie in, or held out."""

import hashlib
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

HOLDOUTS = ("hash", "every-tenth")

# What folders of the usual splits are called, in any case.
SYNONYMS = {
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid"),
    "test": ("test", "testing"),
}
# What they had to be called, letter by letter, when every tenth image was held out.
_EARLIER_FOLDERS = ("train", "validation", "val", "valid", "test")
_SHARE = 10


class Split(NamedTuple):
    """The images of a split.

    Attributes:
      paths: in the order of the tree's.
      folders: the top folders that name a split, no class.
      known: the images whose folders are the classes: of the whole tree, or of a folder alone.
      rule: what put them there, in words.
    """

    paths: list[str]
    folders: frozenset[str]
    known: Sequence[str]
    rule: str


def select_split(images: Sequence[str], name: str, holdout: str) -> Split:
    """Selects a split of a tree.

    `all` is the whole tree, any other name the top folder of that name or, for `train`,
    `validation` and `test`, of a synonym; where nothing is there for `validation`, that for `test`.
    In a tree without such folders `validation` is held out and `train` the rest.

    Args:
      images: sorted relative paths with "/".
      name: of the split.
      holdout: "hash" holds out a tenth by `held_out`; "every-tenth" every tenth image, and knows
        fewer synonyms, in lower case alone.

    Returns:
      A Split, maybe empty.

    Raises:
      ValueError: there is no such split, or several folders claim to be it; says which there are.
    """
    if holdout not in HOLDOUTS:
        raise ValueError(f"holdout is {holdout!r}; expected one of {', '.join(HOLDOUTS)}.")
    tops = sorted({path.split("/")[0] for path in images if "/" in path})
    named = frozenset(top for top in tops if _names_split(top, holdout))
    if name == "all":
        return Split(list(images), named, images, "all")
    folder = _earlier_folder(name, tops) if holdout == "every-tenth" else _folder(name, tops)
    if folder is not None:
        inside = [path for path in images if path.startswith(f"{folder}/")]
        told = f"folder {folder!r}"
        if folder in named:
            return Split(inside, named, images, told)
        return Split(inside, frozenset([folder]), inside, told)
    if name in ("train", "validation") and not named:
        return _held_out_or_not(images, name == "validation", holdout)
    usual = ", ".join(_EARLIER_FOLDERS if holdout == "every-tenth" else SYNONYMS)
    raise ValueError(
        f"its sub-folders are {some(tops)}; expected one of them, or 'all' (or 'train' and "
        f"'validation' in a tree without sub-folders named {usual})."
    )


def hold_out(paths: Sequence[str], holdout: str) -> tuple[set[str], str]:
    """What validates where nothing divides a set.

    Args:
      paths: sorted, relative, with "/".
      holdout: one of HOLDOUTS.

    Returns:
      Those held out, and the rule in words.

    Raises:
      ValueError: there is no such rule.
    """
    if holdout not in HOLDOUTS:
        raise ValueError(f"holdout is {holdout!r}; expected one of {', '.join(HOLDOUTS)}.")
    if holdout == "every-tenth":
        return set(paths[::_SHARE]), "every tenth"
    return held_out(paths), "a tenth, by a hash of the path"


def held_out(paths: Sequence[str]) -> set[str]:
    """A tenth of the paths, by a hash of each: what is added or removed moves no other.

    Where none of two or more falls there, the one of the smallest hash does; where all do, the one
    of the largest does not: in folders so small alone can another image move one.

    Args:
      paths: relative, with "/".

    Returns:
      Those held out.
    """
    places = {path: _place(path) for path in paths}
    chosen = {path for path, place in places.items() if place < 2**64 // _SHARE}
    if len(paths) > 1 and not chosen:
        chosen = {min(places, key=places.__getitem__)}
    if len(paths) > 1 and len(chosen) == len(places):
        chosen.remove(max(places, key=places.__getitem__))
    return chosen


def class_of(path: str, folders: frozenset[str]) -> str | None:
    """The first folder of a path below the split's folder, None where there is none."""
    parts = path.split("/")[:-1]
    if parts and parts[0] in folders:
        parts = parts[1:]
    return parts[0] if parts else None


def some(names: Sequence[str]) -> str:
    """The first ten names."""
    return (", ".join(names[:10]) + (", ..." if len(names) > 10 else "")) or "none"


def _held_out_or_not(images: Sequence[str], wanted: bool, holdout: str) -> Split:
    """What is held out of a tree without folders of splits, or the rest."""
    aside, told = hold_out(images, holdout)
    paths = [path for path in images if (path in aside) is wanted]
    return Split(paths, frozenset(), images, told if wanted else f"all but {told}")


def _place(path: str) -> int:
    """A number in [0, 2^64), the same wherever the tree lies; file systems write accents apart."""
    text = unicodedata.normalize("NFC", path).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big")


def _names_split(top: str, holdout: str) -> bool:
    if holdout == "every-tenth":
        return top in _EARLIER_FOLDERS
    return any(top.lower() in synonyms for synonyms in SYNONYMS.values())


def _folder(name: str, tops: Sequence[str]) -> str | None:
    """The top folder of a split, by its very name or else by a synonym in any case."""
    if name in tops:
        return name
    kinds = [kind for kind, synonyms in SYNONYMS.items() if name.lower() in synonyms]
    for kind in [*kinds, "test"] if kinds == ["validation"] else kinds:
        found = [top for top in tops if top.lower() in SYNONYMS[kind]]
        if len(found) > 1:
            raise ValueError(f"{' and '.join(found)} could all be it; name the one you mean.")
        if found:
            return found[0]
    return None


def _earlier_folder(name: str, tops: Sequence[str]) -> str | None:
    """The top folder of a split as it was found when every tenth image was held out."""
    candidates = _EARLIER_FOLDERS[1:] if name == "validation" else (name,)
    return next((folder for folder in candidates if folder in tops), None)
