"""What is published: one list of requirements under two names, and the licence."""

import pathlib
import re
import tomllib

ROOT = pathlib.Path(__file__).parent.parent


def _listed(path):
    lines = [line.partition("#")[0].strip() for line in path.read_text().splitlines()]
    return [line for line in lines if line]


def test_requirements_are_those_of_the_project_with_cuda():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    expected = [re.sub(r"^jax>", "jax[cuda12]>", name) for name in project["dependencies"]]
    assert _listed(ROOT / "requirements.txt") == expected
    assert project["optional-dependencies"]["cuda12"] == [expected[0]]


def test_beam_is_tested_at_the_version_from_which_it_is_asked_for():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (asked,) = project["optional-dependencies"]["beam"]
    tested = re.search(r"apache-beam==(\d+\.\d+)\.", (ROOT / "launch" / "test.sh").read_text())
    assert asked == f"apache-beam>={tested[1]},<3"


def test_the_licence_is_the_one_that_the_project_names():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    text = (ROOT / "LICENSE").read_text()
    assert project["license"] == "Apache-2.0" and "LICENSE" in project["license-files"]
    assert "Apache License" in text and "Version 2.0, January 2004" in text
    assert "[Apache-2.0](LICENSE)" in (ROOT / "README.md").read_text()
