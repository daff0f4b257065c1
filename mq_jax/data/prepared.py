"""Opening prepared TensorFlow Datasets (TFDS) without TensorFlow, and saying what is missing."""

import difflib
import os
import pathlib
import shlex
from typing import Any, NamedTuple

from mq_jax.data.contents import Contents
from mq_jax.data.declared import require_known_features
from mq_jax.data.preparing import PREPARED_FROM, VERSIONS
from mq_jax.devices.places import local_path
from mq_jax.devices.reading import open_regular


class Prepared(NamedTuple):
    """A split of a prepared set.

    Attributes:
      records: random access, images left encoded.
      class_names: empty where there are none.
      labelled: whether there are integer labels.
      contents: the shards and which of their records.
    """

    records: Any
    class_names: tuple[str, ...]
    labelled: bool
    contents: Contents


def open_prepared(name: str, split: str, directory: str) -> Prepared:
    """Opens a split of a set that lies prepared in ArrayRecord files.

    Args:
      name: as TFDS writes it: NAME, NAME/CONFIG or NAME:VERSION.
      split: in TFDS's grammar, such as `train`, `test[:2000]` or `train[10%:]`.
      directory: TFDS's data_dir; "" is TFDS's own default.

    Returns:
      A Prepared.

    Raises:
      ValueError: the set is unknown, not prepared, in another file format or without images, or
        the split is unknown or empty; or its files name code that is not TFDS's own.
    """
    # Imported here: 0.6 s that only these sets need.
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import read_only_builder
    from tensorflow_datasets.core.utils import error_utils

    root = data_directory(directory, "data.dir")
    # Not builder_from_files: it imports what the files name before anyone could look at them.
    with error_utils.record_error_context():
        folder = read_only_builder._find_builder_dir(name, data_dir=root)
    if folder is None:
        raise ValueError(_not_prepared(name, root, given=bool(directory)))
    require_known_features(pathlib.Path(folder))
    builder = read_only_builder.builder_from_directory(folder)
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
    contents, records = _open_split(tfds, builder, name, split)
    return Prepared(records, class_names, labelled, contents)


def data_directory(directory: str, name: str) -> str:
    """TFDS's data_dir.

    Args:
      directory: as a person gave it; "" is TFDS's own default.
      name: of what it is, as an error begins.

    Returns:
      Its path.

    Raises:
      ValueError: it is no place of this machine.
    """
    if directory:
        return str(local_path(directory, name))
    # Imported here: 0.6 s that only these sets need.
    import tensorflow_datasets as tfds

    default = tfds.core.constants.get_default_data_dir()
    return str(local_path(default, f"{name} is empty and TFDS's default"))


def _open_split(tfds: Any, builder: Any, name: str, split: str) -> tuple[Contents, Any]:
    """What one split holds, and its data source, images left encoded."""
    decoders = {"image": tfds.decode.SkipDecoding()}
    try:
        shards = _shards(builder, split)
        source = builder.as_data_source(split=split, decoders=decoders, file_format="array_record")
        reason = "" if len(source) else "it is empty"
    except (ValueError, KeyError, OSError) as error:
        reason = str(error)
    if reason:
        sizes = ", ".join(f"{s} ({info.num_examples})" for s, info in builder.info.splits.items())
        raise ValueError(f"cannot open split {split!r} of {name!r}: {reason} Available: {sizes}.")
    full_name = builder.info.full_name
    return Contents(full_name, f"{full_name} {split}", len(source), shards), source


def _shards(builder: Any, split: str) -> list[str]:
    """The shards of a split by name and bytes, and which of their records it has.

    Each is opened once: a FIFO, say, would hang whoever reads its records.
    """
    told = []
    for shard in builder.info.splits[split].file_instructions:
        path = pathlib.Path(shard.filename)
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
        taken = shard.examples_in_shard - shard.skip if shard.take < 0 else shard.take
        last = shard.skip + taken
        told.append(f"{path.name} of {size} bytes, records {shard.skip} to {last}")
    return told


def _not_prepared(name: str, root: str, *, given: bool) -> str:
    """Why a set was not found, and what to do: TFDS may know it or not."""
    present = _prepared_sets(root)
    found = f"{name!r} is not prepared in {root!r}, which holds {', '.join(present) or 'no set'}."
    if not given:
        found += " That is TFDS's default, as config.data.dir is empty."
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
    """The command that prepares a set, and that of ours where there is one."""
    bare, own = name.split(":")[0].split("/")[0], ""
    if bare in VERSIONS:
        asked = ["--mode=prepare", f"--from={PREPARED_FROM[bare]}", f"--output={root}"]
        ours = shlex.join(["python", "-m", "mq_jax.main", *asked])
        own = f"To prepare it from the official archive, run `{ours}`. "
    build = shlex.join(["tfds", "build", name, f"--data_dir={root}"])
    return (
        f"{own}To prepare it by TFDS, run `{build} --file_format=array_record` in "
        "an environment that also has tensorflow-cpu and importlib_resources (that needs "
        "TensorFlow, reading does not)."
    )
