"""The architecture: who may import whom, and where a gradient may be stopped."""

import ast
import pathlib

import pytest

PACKAGE = pathlib.Path(__file__).parent.parent / "mq_jax"
FILES = sorted(PACKAGE.rglob("*.py"))

# A module imports only from lower layers.
LAYERS = (
    {
        *("agreement", "bilevel", "cache", "console", "distributed", "environment", "files"),
        *("health", "hlo", "images", "interrupt", "losses", "optim", "quantize", "sharding"),
        *("ssim", "state", "trees"),
    },
    {
        *("checkpoint", "claims", "data", "fingerprint", "flops", "frechet", "hlo_merge"),
        *("lookup", "metrics", "models", "objective", "orbax_noise", "snapshot", "tally", "tokens"),
        *("workdir", "writers"),
    },
    {"adversary", "coding", "inputs", "measures", "perceptual"},
    {"consistency", "mq"},
    {"build", "feature_moments", "validate"},
    {"commandline", "evaluate", "exporting", "feed", "program"},
    {"plan", "protocol", "tokenizer", "train"},
    {"plan_tables", "report", "transcribe"},
    {"modes"},
    {"bench", "main", "tokenize"},
)
# Beside what the modules of a package import of each other.
WITHIN_A_LAYER = {
    ("checkpoint", "orbax_noise"),
    ("measures", "perceptual"),
    ("claims", "workdir"),
    ("tokens", "claims"),
    ("writers", "workdir"),
}

MAY_STOP_GRADIENTS = {"quantize.py", "losses.py"}


def name_of(path):
    """The module, or the package it is in, as the table calls it."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def layer_of(name):
    (layer,) = [i for i, names in enumerate(LAYERS) if name in names]
    return layer


def imports_of(path):
    """The modules and packages of mq_jax that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            full = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            full = [alias.name for alias in node.names]
        else:
            continue
        found |= {name.split(".")[1] for name in full if name.startswith("mq_jax.")}
    return found


def test_the_table_lists_every_module_once_and_no_other():
    listed = sorted(name for names in LAYERS for name in names)
    assert listed == sorted({name_of(path) for path in FILES} - {"__init__"})


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_imports_only_from_lower_layers(path):
    name, imports = name_of(path), imports_of(path)
    if name == "__init__":
        # Lazily, for `from mq_jax import load_tokenizer`.
        assert imports == {"tokenizer"} if path.parent == PACKAGE else not imports
        return
    wrong = {
        other
        for other in imports - {name}
        if layer_of(other) >= layer_of(name) and (name, other) not in WITHIN_A_LAYER
    }
    assert not wrong


def test_exceptions_are_of_one_layer_and_in_use():
    for importer, imported in WITHIN_A_LAYER:
        assert layer_of(importer) == layer_of(imported)
        assert imported in imports_of(PACKAGE / f"{importer}.py")


def test_the_bilevel_engine_knows_nothing_of_the_rest():
    assert not imports_of(PACKAGE / "bilevel.py")


def test_gradients_are_stopped_in_two_files_and_nowhere_without_a_reason():
    found = set()
    for path in FILES:
        lines = path.read_text().splitlines()
        for i, line in enumerate(lines):
            if "stop_gradient" in line:
                found.add(path.name)
                above = [before.strip() for before in lines[max(i - 2, 0) : i]]
                assert any(before.startswith("#") for before in above), f"{path}:{i + 1}"
    assert found and found <= MAY_STOP_GRADIENTS
