"""The architecture: which package may import which, what each says of itself, and what it costs."""

import ast
import graphlib
import importlib
import pathlib
import subprocess
import sys

import pytest

PACKAGE = pathlib.Path(__file__).parents[1] / "mq_jax"

# Each package after those that it imports; `commandline` is what main and bench share.
GRAPH = {
    "devices": "",
    "terminal": "",
    "storage": "devices",
    "runs": "storage devices",
    "quantizers": "devices",
    "algorithm": "quantizers",
    "images": "devices",
    "containers": "storage devices",
    "data": "images algorithm containers devices",
    "tensorfiles": "storage",
    "models": "quantizers tensorfiles storage devices",
    "peers": "models tensorfiles storage",
    "metrics": "models data images quantizers storage devices terminal",
    "evaluation": "metrics data images algorithm quantizers runs storage devices",
    "training": "evaluation metrics models data images algorithm quantizers runs storage devices "
    "terminal",
    "tokenizers": "training peers models data images algorithm quantizers runs storage devices",
    "formats": "peers tokenizers",
    "tokensets": "tokenizers data images containers storage devices",
    "generation": "",
    "priors": "tokensets generation training data algorithm runs storage devices",
    "samplers": "priors generation tokensets tokenizers images runs storage devices",
    "planning": "priors tokensets generation training metrics data runs devices terminal",
    "report": "evaluation images runs storage terminal",
    "commandline": "runs terminal",
    "suites": "commandline report priors training evaluation runs storage devices terminal",
    "modes": "suites commandline report planning samplers priors generation tokensets formats "
    "tokenizers peers training evaluation metrics models data containers images algorithm runs "
    "storage devices terminal",
    "bench": "commandline planning generation tokenizers training data images algorithm quantizers "
    "runs storage devices terminal",
}
# What a program's file imports only once its arguments are known.
PROGRAMS = {
    "main": "commandline modes devices terminal",
    "tokenize": "modes devices terminal",
    "__init__": "tokenizers samplers",
}
PACKAGES = sorted(set(GRAPH) - {"commandline"})

MAY_STOP_GRADIENTS = ("quantizers/", "algorithm/losses.py")


def files_of(package):
    """The modules of a package, or the one of that name at the root."""
    folder = PACKAGE / package
    return sorted(folder.glob("*.py")) if folder.is_dir() else [PACKAGE / f"{package}.py"]


def imports_of(path):
    """What a file imports of mq_jax, wherever in it: dotted names by their parts, ours left out."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            full = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            full = [alias.name for alias in node.names]
        else:
            continue
        found |= {tuple(name.split(".")[1:]) for name in full if name.split(".")[0] == "mq_jax"}
    # A whole package, or one by a text, would be an arrow that nobody sees.
    assert () not in found, f"{path}: imports mq_jax as a whole"
    assert 'import_module("mq_jax' not in path.read_text(), path
    return found


def public_names(package):
    """What a package's __init__ names: (its module, the name there, the name here)."""
    nodes = ast.walk(ast.parse((PACKAGE / package / "__init__.py").read_text()))
    return [
        (node.module, alias.name, alias.asname or alias.name)
        for node in nodes
        if isinstance(node, ast.ImportFrom) and node.module.startswith("mq_jax")
        for alias in node.names
    ]


def test_packages_and_programs_are_all_there_is():
    assert {path.stem for path in PACKAGE.glob("*.py")} == {*PROGRAMS, "commandline"}
    folders = {path.parent.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py")}
    assert folders == {pathlib.Path(package) for package in (".", *PACKAGES)}


def test_the_graph_has_no_circle():
    known = list(GRAPH)
    for package, others in GRAPH.items():
        assert set(others.split()) <= set(known[: known.index(package)])


@pytest.mark.parametrize("package", [*GRAPH, *PROGRAMS])
def test_a_package_imports_what_the_graph_says_and_no_less(package):
    arrows = {name[0] for path in files_of(package) for name in imports_of(path)}
    assert arrows - {package} == set({**GRAPH, **PROGRAMS}[package].split())


@pytest.mark.parametrize("package", PACKAGES)
def test_no_circle_inside_a_package(package):
    within = {
        path.stem: {name[1] for name in imports_of(path) if name[0] == package}
        for path in files_of(package)
        if path.stem != "__init__"
    }
    # By its modules alone: a name of the package itself would hide whose it is.
    assert set().union(*within.values()) <= set(within)
    # Raises CycleError where there is one.
    graphlib.TopologicalSorter(within).prepare()


def test_data_knows_no_more_of_the_algorithm_than_its_parts():
    known = {name for path in files_of("data") for name in imports_of(path)}
    assert {name for name in known if name[0] == "algorithm"} == {("algorithm", "state", "Parts")}


def test_the_bilevel_engine_knows_nothing_of_the_rest():
    engine = ("accumulation", "implicit", "bilevel", "trajectory")
    known = {
        name[:2] for file in engine for name in imports_of(PACKAGE / "algorithm" / f"{file}.py")
    }
    assert known == {("algorithm", name) for name in engine[:-1]}


def test_gradients_are_stopped_in_two_places_and_nowhere_without_a_reason():
    found = set()
    for path in PACKAGE.rglob("*.py"):
        lines = path.read_text().splitlines()
        for i, line in enumerate(lines):
            if "stop_gradient" in line:
                found.add(path.relative_to(PACKAGE).as_posix())
                above = [before.strip() for before in lines[max(i - 2, 0) : i]]
                assert any(before.startswith("#") for before in above), f"{path}:{i + 1}"
    assert found and all(place.startswith(MAY_STOP_GRADIENTS) for place in found)


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_says_what_belongs_there_and_names_its_api(package):
    module = importlib.import_module(f"mq_jax.{package}")
    said = [line for line in module.__doc__.splitlines() if line]
    assert 1 <= len(said) <= 3
    names = public_names(package)
    assert names or "No public API." in module.__doc__
    modules = {path.stem for path in files_of(package)}
    for source, name, public in names:
        assert source.startswith(f"mq_jax.{package}.")
        # Python sets a module that is imported as an attribute of its package: one would hide.
        assert public not in modules
        assert getattr(module, public) is getattr(importlib.import_module(source), name)


def test_people_are_told_through_the_terminal_package_alone():
    """What prints by itself can fail the work, or show a name that breaks a line."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            printed = isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print"
            stream = isinstance(node, ast.Attribute) and node.attr in ("stdout", "stderr")
            if printed or (stream and getattr(node.value, "id", "") == "sys"):
                found.add(path.relative_to(PACKAGE).as_posix())
    # `abandon` flushes them before it ends the process.
    assert found == {"terminal/streams.py", "devices/distributed.py"}


QUANTIZERS = ", ".join(public for _, _, public in public_names("quantizers"))
HELP = (
    "import runpy, sys; sys.argv[1:] = ['--help']; runpy.run_module('mq_jax.{}', None, '__main__')"
)

# What a fresh process runs, and what that must not load, beside what is HEAVY.
LIGHT = {
    f"from mq_jax.quantizers import {QUANTIZERS}": "mq_jax.algorithm mq_jax.training optax orbax",
    "from mq_jax.tokenizers import read_names, read_tokens": "jax flax optax orbax",
    "from mq_jax.runs import flat, read_config": "jax flax optax orbax",
    "from mq_jax.tokensets import open_tokens": "jax flax optax orbax grain",
    "from mq_jax import load_tokenizer": "mq_jax.training.train mq_jax.modes grain",
    "from mq_jax import load_prior": "mq_jax.training.train mq_jax.modes grain",
    "from mq_jax import read_tokens": "jax flax optax orbax",
    "import mq_jax": "jax flax numpy",
    HELP.format("main"): "jax flax numpy rich",
    HELP.format("tokenize"): "jax flax numpy rich",
    HELP.format("bench"): "jax flax numpy rich",
}
# A training loads its own mode, and the report once there is one to write.
TRAINING = "from mq_jax.modes import dispatch, training"
OTHERS = "plotly jinja2 mq_jax.tokenizers.tokenizer mq_jax.samplers.sampler mq_jax.priors.train"
HEAVY = "tensorboardX tensorboard plotly tensorflow tensorflow_datasets sklearn skimage clu"


@pytest.mark.parametrize(
    "statement, absent",
    [*((used, f"{absent} {HEAVY}") for used, absent in LIGHT.items()), (TRAINING, OTHERS)],
)
def test_what_is_used_alone_loads_little(statement, absent):
    script = f"""
import atexit, sys
absent = {absent.split()!r}
atexit.register(lambda: print("loaded:", [name for name in absent if name in sys.modules]))
{statement}
"""
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, cwd=PACKAGE.parent)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "loaded: []"


def test_the_tests_mirror_the_packages():
    tests = pathlib.Path(__file__).parent
    folders = {path.parent.relative_to(tests).as_posix() for path in tests.rglob("*.py")}
    assert folders - {".", "fixtures"} == set(PACKAGES)
