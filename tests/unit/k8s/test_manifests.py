"""The manifests are what the chart renders, and kustomize accepts them."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.support.required import program
from tests.unit.k8s.rendering import ROOT, package
from tests.unit.k8s.test_schemas import KUBERNETES, check

MANIFESTS = ROOT / "k8s" / "manifests"
NAMES = sorted(path.parent.name for path in MANIFESTS.glob("*/values.yaml"))


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return what the chart renders now."""
    package("helm_python")
    target = tmp_path_factory.mktemp("manifests")
    subprocess.run([sys.executable, ROOT / "scripts/chart", target], check=True, timeout=100)
    return target


def texts(directory: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in directory.glob("*.yaml") if path.name != "values.yaml"}


@pytest.mark.parametrize("name", NAMES)
def test_manifests_are_up_to_date(name: str, fresh: Path) -> None:
    assert texts(MANIFESTS / name) == texts(fresh / name), "run scripts/chart"


@pytest.mark.parametrize("name", NAMES)
def test_the_kustomization_lists_exactly_the_files(name: str) -> None:
    listed = yaml.safe_load((MANIFESTS / name / "kustomization.yaml").read_text())["resources"]
    assert {*listed, "kustomization.yaml"} == set(texts(MANIFESTS / name))


@pytest.mark.parametrize("name", NAMES)
def test_manifests_hold_no_secret_and_no_hook(name: str) -> None:
    for text in texts(MANIFESTS / name).values():
        assert "kind: Secret" not in text
        assert "helm.sh/hook" not in text


@pytest.fixture(scope="module")
def kubectl() -> str:
    """Return the path of the command."""
    return program("kubectl")


@pytest.mark.deploy
@pytest.mark.parametrize("name", NAMES)
def test_kustomize_makes_valid_resources_of_one_namespace(name: str, kubectl: str) -> None:
    made = subprocess.run(
        [kubectl, "kustomize", MANIFESTS / name], check=True, capture_output=True, text=True, timeout=100
    )
    resources = list(yaml.safe_load_all(made.stdout))
    for resource in resources:
        check(resource, KUBERNETES[-1])
    cluster = {"Namespace", "PriorityClass"}
    spaces = {one["metadata"].get("namespace") for one in resources if one["kind"] not in cluster}
    assert spaces == {"citadel"}
