"""Opening prepared TensorFlow Datasets (TFDS) without TensorFlow, and saying what is missing."""

import difflib
import os
import pathlib
import shlex
from typing import Any


def open_prepared(name: str, split: str, directory: str) -> tuple[Any, tuple[str, ...], bool]:
    """Opens a split of a set that lies prepared in ArrayRecord files.

    Args:
      name: as TFDS writes it: NAME, NAME/CONFIG or NAME:VERSION.
      split: in TFDS's grammar, such as `train`, `test[:2000]` or `train[10%:]`.
      directory: TFDS's data_dir; "" is TFDS's own default.

    Returns:
      The random-access data source with images left encoded, the class names (empty where there
      are none), and whether there are integer labels.

    Raises:
      ValueError: the set is unknown, not prepared, in another file format or without images, or
        the split is unknown or empty.
    """
    # Imported here: 0.6 s that only these sets need.
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import read_only_builder

    root = os.path.expanduser(directory) or tfds.core.constants.get_default_data_dir()
    try:
        builder = read_only_builder.builder_from_files(name, data_dir=root)
    except tfds.core.DatasetNotFoundError as error:
        raise ValueError(_not_prepared(name, root)) from error
    formats = {str(file_format.value) for file_format in builder.info.available_file_formats()}
    if "array_record" not in formats:
        raise ValueError(
            f"{name!r} in {root!r} is prepared as {', '.join(sorted(formats))}; expected "
            f"array_record, which allows random access. {_how_to_prepare(name, root)}"
        )
    features = dict(builder.info.features)
    if not isinstance(features.get("image"), tfds.features.Image):
        raise ValueError(f"{name!r} has no feature 'image'; it has {', '.join(features)}.")
    label = features.get("label")
    labelled = isinstance(label, tfds.features.ClassLabel)
    class_names = tuple(label.names or ()) if labelled else ()
    return _open_split(tfds, builder, name, split), class_names, labelled


def _open_split(tfds: Any, builder: Any, name: str, split: str) -> Any:
    """The data source of one split, images left encoded."""
    try:
        source = builder.as_data_source(
            split=split, decoders={"image": tfds.decode.SkipDecoding()}, file_format="array_record"
        )
        reason = "" if len(source) else "it is empty"
    except (ValueError, KeyError) as error:
        reason = str(error)
    if reason:
        sizes = ", ".join(f"{s} ({info.num_examples})" for s, info in builder.info.splits.items())
        raise ValueError(f"cannot open split {split!r} of {name!r}: {reason} Available: {sizes}.")
    return source


def _not_prepared(name: str, root: str) -> str:
    """Why a set was not found, and what to do: TFDS may know it or not."""
    present = _prepared_sets(root)
    found = f"{name!r} is not prepared in {root!r}, which holds {', '.join(present) or 'no set'}."
    bare = name.split(":")[0].split("/")[0]
    known, own = _known_sets(bare), {path.split("/")[0] for path in present}
    if bare in known:
        return f"{found} {_how_to_prepare(name, root)}"
    if bare in own:
        return f"{found} Ask for a version and config that is there, as NAME/CONFIG:VERSION."
    near = difflib.get_close_matches(bare, sorted(known | own))
    return f"{found} TFDS knows no {bare!r}; near: {', '.join(near) or 'none'}. Correct the name."


def _known_sets(name: str) -> set[str]:
    """The names of the sets that TFDS can prepare, with `name` if it is one."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import registered

    try:
        tfds.builder_cls(name)
    except tfds.core.DatasetNotFoundError:
        return set(registered.list_imported_builders())
    # Some builders import TensorFlow; their names are known all the same.
    except ImportError:
        pass
    return {name}


def _prepared_sets(root: str) -> list[str]:
    """The sets below `root` that carry TFDS metadata, as NAME/VERSION or NAME/CONFIG/VERSION."""
    infos = (
        path
        for depth in ("*/*", "*/*/*")
        for path in pathlib.Path(root).glob(f"{depth}/features.json")
    )
    return sorted(path.parent.relative_to(root).as_posix() for path in infos)


def _how_to_prepare(name: str, root: str) -> str:
    """The command that prepares a set."""
    build = shlex.join(["tfds", "build", name, f"--data_dir={root}"])
    return (
        f"To prepare it, run `{build} --file_format=array_record` in "
        "an environment that also has tensorflow-cpu and importlib_resources (preparing needs "
        "TensorFlow, reading does not)."
    )
