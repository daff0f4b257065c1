"""Reading the export of a prior: no pickle, every byte accounted for by its fingerprint."""

import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.export
from ml_collections import ConfigDict

from mq_jax.devices.places import local_path
from mq_jax.priors.build import make_net, make_prior
from mq_jax.priors.facts import facts_from
from mq_jax.priors.fields import RULES
from mq_jax.runs.orbax_noise import one_line
from mq_jax.runs.trees import by_path
from mq_jax.samplers.export import VERSION, PriorExport
from mq_jax.samplers.restored import architecture_of
from mq_jax.storage.schema import ANY, SHA256, check, shown, whole
from mq_jax.tokenizers.export import fingerprint
from mq_jax.tokenizers.export_checking import damage, require_declared, require_fingerprint
from mq_jax.tokenizers.export_folder import FOLDER, nothing_exported
from mq_jax.tokenizers.programs import is_program, read_program
from mq_jax.tokenizers.tensors import file_of, read_tensors

SAFETENSORS = file_of("prior")

_RULES = {
    name.removeprefix("prior."): rule for name, rule in RULES.items() if name.startswith("prior.")
}
_HEADER = {
    "version": ANY,
    "prior": _RULES,
    "tokens": ANY,
    "step": whole(0),
    "fingerprint": SHA256,
    "origin_sha256": SHA256,
}
# Far beyond what was ever trained, and near enough that a model's shapes are found in seconds.
_LIMITS = {name: whole(0, 2**14) for name in ("layers", "heads", "width")}
_MOST_ANGLES = 2**28


def read_prior(path: str | os.PathLike) -> PriorExport:
    """Reads the weights of an exported prior, and what they are of.

    Args:
      path: an export folder, the folder of a run that has one, or the safetensors file.

    Returns:
      A PriorExport, its fingerprint checked.

    Raises:
      FileNotFoundError: there is no export; says how to make one.
      ValueError: it is damaged, truncated, of an unknown version, or of something else.
    """
    return _read(_file(path))


def read_programs(path: str | os.PathLike) -> tuple[PriorExport, dict[str, jax.export.Exported]]:
    """Reads a prior with its programs, which are code: run those of whom you trust.

    Args:
      path: an export folder, or the folder of a run that has one.

    Returns:
      (its PriorExport, whose weights are the first argument of each program; `prefill` and `step`
      of an autoregressive prior, `logits` of a masked one, as export_programs.functions_of says).

    Raises:
      FileNotFoundError: there is no export; says how to make one.
      ValueError: a file is damaged, of another model, or of something else.
    """
    file = _file(path)
    export = _read(file)
    names = ("prefill", "step") if export.fields["kind"] == "autoregressive" else ("logits",)
    return export, {
        name: read_program(file.with_name(f"{name}.stablehlo"), export.fingerprint)
        for name in names
    }


def is_exported(path: str | os.PathLike) -> bool:
    """Whether a place is an export rather than the run of a prior.

    Args:
      path: of any place.

    Returns:
      True for files, too.
    """
    path = pathlib.Path(path)
    return path.is_file() or (path / SAFETENSORS).is_file()


def _file(path) -> pathlib.Path:
    """The safetensors file of an export."""
    path = local_path(path, "The prior")
    for folder in (path, path / FOLDER):
        if (folder / SAFETENSORS).is_file():
            return folder / SAFETENSORS
        if (folder / file_of("tokenizer")).is_file():
            raise ValueError(
                f"{folder} is the export of a tokenizer; expected that of a prior, the second "
                "stage. load_tokenizer reads a tokenizer's."
            )
    if path.is_file() and is_program(path):
        raise ValueError(
            f"{path} is a StableHLO program, a part of an export; expected the folder of its "
            f"export, or {SAFETENSORS} in it. mq_jax.tokenizers.read_program reads a program."
        )
    if not path.is_file():
        raise nothing_exported(path, "prior")
    return path


def _read(path: pathlib.Path) -> PriorExport:
    """The content of a safetensors file."""

    def require(header, declared):
        _require_header(header, path)
        require_declared(_arrays_of(header, path), declared, path)

    header, weights = read_tensors(path, "prior", require)
    facts, fields = facts_from(header["tokens"]), header["prior"]
    architecture = architecture_of(ConfigDict({"prior": fields}), facts.space)
    require_fingerprint(fingerprint(architecture, weights), header["fingerprint"], path)
    export = PriorExport(fields, facts, header["step"], weights, header["fingerprint"])
    # Not part of the fingerprint, which is that of a run.
    if export.header["origin_sha256"] != header["origin_sha256"]:
        raise damage(path, "its tokens or its step are not those that were exported")
    return export


def _require_header(header: Any, origin: pathlib.Path) -> None:
    """Raises unless a header describes a prior and its tokens."""
    if isinstance(header, Mapping) and header.get("version") != VERSION:
        version = shown(header["version"]) if "version" in header else "unknown"
        raise ValueError(
            f"{origin} is of version {version}; expected {VERSION}. Read it with the mq_jax that "
            "wrote it, or export it again."
        )
    try:
        check(header, _HEADER, "its header")
        check(header["prior"], _LIMITS, "its header.prior")
        space = facts_from(header["tokens"]).space
        net = make_net(ConfigDict({"prior": header["prior"]}))
        if space.places * net.width > _MOST_ANGLES:
            raise ValueError(f"its header has {space.places} places of {net.width} channels")
    except ValueError as error:
        raise damage(origin, str(error)) from error


def _arrays_of(header: Mapping[str, Any], origin: pathlib.Path) -> dict[str, tuple]:
    """The arrays of the prior that a header describes; nothing is computed."""
    config, space = ConfigDict({"prior": header["prior"]}), facts_from(header["tokens"]).space
    try:
        shapes = jax.eval_shape(make_prior(config, space).init, jax.random.key(0))
    # Flax raises what it likes for shapes that no array can have.
    except Exception as error:
        raise damage(origin, f"its header makes no prior ({one_line(error)})") from error
    return {name: (list(leaf.shape), leaf.dtype.name) for name, leaf in by_path(shapes).items()}
