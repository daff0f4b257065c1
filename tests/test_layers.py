"""The architecture: who may import whom, and where a gradient may be stopped."""

import ast
import graphlib
import pathlib

import pytest

PACKAGE = pathlib.Path(__file__).parent.parent / "mq_jax"
FILES = sorted(PACKAGE.rglob("*.py"))
ROOT = {"__init__", "main", "tokenize", "commandline"}

# Each package, after those that it may import.
GRAPH = {
    "devices": "",
    "terminal": "",
    "runs": "devices",
    "quantizers": "devices",
    "algorithm": "quantizers",
    "data": "algorithm devices",
    "models": "quantizers runs devices",
    "metrics": "models data quantizers runs devices",
    "evaluation": "metrics data algorithm quantizers runs devices",
    "training": "evaluation metrics models algorithm quantizers data runs devices terminal",
    "planning": "training devices terminal",
    "tokenizers": "training data algorithm quantizers runs devices",
    "report": "evaluation runs",
    # What the programs share, at the root.
    "commandline": "terminal",
    "modes": "commandline report planning tokenizers training evaluation metrics models algorithm "
    "data runs devices terminal",
    "bench": "commandline tokenizers training metrics data runs quantizers devices terminal",
}
# Modules that still stand at the root, under the package that they move to.
MOVING = {}
MAY_STOP_GRADIENTS = ("quantizers/", "algorithm/losses.py")


def package_of(parts):
    """The package of a dotted name below mq_jax, "" for a module of the root."""
    for package, names in MOVING.items():
        if parts[0] in names.split():
            return package.split()[0]
    return parts[0] if parts[0] in GRAPH else ""


def parts_of(path):
    """The dotted name of a file below mq_jax, by its parts."""
    return path.relative_to(PACKAGE).with_suffix("").parts


def imports_of(path):
    """The modules of mq_jax that a file imports, wherever in it, by their parts."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            full = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            full = [alias.name for alias in node.names]
        else:
            continue
        found |= {tuple(name.split(".")[1:]) for name in full if name.startswith("mq_jax.")}
    return found


def test_nothing_else_stands_at_the_root():
    moving = {name for names in MOVING.values() for name in names.split()}
    assert {path.stem for path in PACKAGE.glob("*.py")} == ROOT | moving
    folders = {path.parent.name for path in PACKAGE.rglob("__init__.py")} - {"mq_jax"}
    assert folders <= set(GRAPH)


def test_the_graph_has_no_circle():
    known = list(GRAPH)
    for package, others in GRAPH.items():
        assert set(others.split()) <= set(known[: known.index(package)])


@pytest.mark.parametrize("package", GRAPH)
def test_a_package_imports_what_the_graph_says(package):
    arrows = {
        package_of(name)
        for path in FILES
        if package_of(parts_of(path)) == package
        for name in imports_of(path)
    }
    assert arrows - {package} <= set(GRAPH[package].split())


@pytest.mark.parametrize("package", GRAPH)
def test_no_circle_inside_a_package(package):
    within = {
        parts_of(path)[1]: {
            name[1] for name in imports_of(path) if name[0] == package and len(name) > 1
        }
        for path in (PACKAGE / package).glob("*.py")
    }
    assert list(graphlib.TopologicalSorter(within).static_order()) is not None


def test_the_bilevel_engine_knows_nothing_of_the_rest():
    (path,) = PACKAGE.rglob("bilevel.py")
    assert not imports_of(path)


def test_gradients_are_stopped_in_two_places_and_nowhere_without_a_reason():
    found = set()
    for path in FILES:
        lines = path.read_text().splitlines()
        for i, line in enumerate(lines):
            if "stop_gradient" in line:
                found.add("/".join((package_of(parts_of(path)), path.name)))
                above = [before.strip() for before in lines[max(i - 2, 0) : i]]
                assert any(before.startswith("#") for before in above), f"{path}:{i + 1}"
    assert found and all(place.startswith(MAY_STOP_GRADIENTS) for place in found)
