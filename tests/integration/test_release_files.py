"""Files of a release agree with pyproject.toml: citation, conda recipe, workflows."""

from __future__ import annotations

import re
import runpy
import shutil
import tomllib

import pytest
import yaml
from hatchling.metadata.core import ProjectMetadata
from hatchling.metadata.spec import construct_metadata_file_2_4
from hatchling.plugin.manager import PluginManager

from paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CONDA_NAMES = {
    "fastjsonschema": "python-fastjsonschema",
    "lazy_loader": "lazy-loader",
    "netCDF4": "netcdf4",
    "torch": "pytorch",
    "xxhash": "python-xxhash",
}
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def read(path: str) -> dict:
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def test_every_file_has_the_version_of_the_project() -> None:
    assert read("CITATION.cff")["version"] == PROJECT["version"]
    assert read("conda/recipe.yaml")["context"]["version"] == PROJECT["version"]
    assert read("widgets/package.json")["version"] == PROJECT["version"]


def test_the_conda_recipe_needs_what_pip_needs() -> None:
    expected = []
    for requirement in PROJECT["dependencies"]:
        name, versions = re.fullmatch(r"([\w-]+)(.*)", requirement).groups()  # type: ignore[union-attr]
        expected.append(f"{CONDA_NAMES.get(name, name)} {versions}")
    python, *found = read("conda/recipe.yaml")["requirements"]["run"]
    assert found == expected
    assert python == "python >=${{ python_min }}"
    assert f">={read('conda/recipe.yaml')['context']['python_min']}" == PROJECT["requires-python"]


def test_the_versions_of_python_that_are_named_are_tested() -> None:
    named = re.findall(r"Python :: (3\.\d+)", " ".join(PROJECT["classifiers"]))
    assert read(".github/workflows/ci.yml")["jobs"]["tests"]["strategy"]["matrix"]["python"] == named


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_pin_actions_and_have_least_permissions(path) -> None:
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert workflow["permissions"] == {}
    for job in workflow["jobs"].values():
        assert job["permissions"] in ({"contents": "read"}, {"id-token": "write"})
        for step in job["steps"]:
            assert re.fullmatch(r"[\w/.-]+@[0-9a-f]{40}", step.get("uses", f"a@{'0' * 40}"))
            if "checkout" in step.get("uses", ""):
                assert step["with"]["persist-credentials"] is False


def test_scripts_of_the_workflows_exist() -> None:
    """A renamed script would only fail on the server."""
    scripts = {script for path in WORKFLOWS for script in re.findall(r"\.ci/[\w.]+", path.read_text(encoding="utf-8"))}
    assert scripts
    assert [script for script in sorted(scripts) if not (ROOT / script).is_file()] == []


def test_links_of_the_published_description_are_addresses_of_files(tmp_path) -> None:
    for name in ("README.md", "pyproject.toml", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    address, commit = "https://example.org/user/headnb", "0" * 40
    runpy.run_path(str(ROOT / ".ci" / "absolute_links.py"))["main"](tmp_path, address, commit)
    metadata = construct_metadata_file_2_4(ProjectMetadata(str(tmp_path), PluginManager()))
    assert f"Project-URL: Source, {address}\n" in metadata
    links = re.findall(r"(!?)\[[^\]]*\]\(([^)]+)\)", metadata)
    assert {mark for mark, _ in links} == {"!", ""}
    for mark, link in links:
        own = link.removeprefix(f"{address}/{'raw' if mark else 'blob'}/{commit}/")
        assert (ROOT / own.partition("#")[0]).is_file() if own != link else link.startswith("https://")
