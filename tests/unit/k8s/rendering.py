"""Renderings of the chart: resources by kind and name. Helm is a library; without it the tests skip and say so."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
CHART = ROOT / "k8s" / "chart"
PRODUCTION = ROOT / "k8s" / "manifests" / "production" / "values.yaml"
VALUES = {path.stem: path for path in sorted((Path(__file__).parent / "values").glob("*.yaml"))} | {
    "production": PRODUCTION
}
"""Sets of values for rendering."""
CITADEL = {"api", "beat", "exporter", "migrate", "worker"}
"""Names of the containers that run Citadel's own processes."""


def package(name: str) -> Any:
    """Return an optional package; without it the test skips, or fails with CI=true."""
    if os.environ.get("CI") == "true":
        return __import__(name)
    return pytest.importorskip(name, reason=f"{name} is missing: CHARTS=1 make setup")


def values_of(name: str) -> dict[str, Any]:
    """Return one of the sets of values."""
    return yaml.safe_load(VALUES[name].read_text()) or {}


@dataclass(frozen=True)
class Rendered:
    """The resources of one rendering, and the notes."""

    resources: tuple[dict[str, Any], ...]
    notes: str

    def of(self, kind: str) -> dict[str, dict[str, Any]]:
        """Return the resources of a kind by the last part of their names (`citadel-api` is `api`)."""
        return {one["metadata"]["name"].removeprefix("citadel-"): one for one in self.resources if one["kind"] == kind}

    def pods(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield name and pod template of each resource that makes pods."""
        for one in self.resources:
            if one["kind"] in {"Deployment", "StatefulSet", "Job"}:
                yield one["metadata"]["labels"]["app.kubernetes.io/component"], one["spec"]["template"]

    def container(self, component: str) -> dict[str, Any]:
        """Return the only container of a component."""
        (container,) = dict(self.pods())[component]["spec"]["containers"]
        return container

    def environment(self, component: str) -> dict[str, str]:
        """Return the plain variables of a component."""
        return {one["name"]: one["value"] for one in self.container(component)["env"] if "value" in one}


def render(values: dict[str, Any], chart: Path = CHART, **release: Any) -> Rendered:
    """Return what `helm template citadel CHART --namespace citadel` renders from values.

    Raises:
        helm_python.HelmError: The values are refused.
    """
    helm = package("helm_python")
    files = helm.Chart.load(chart).render(values, name="citadel", namespace="citadel", **release)
    documents = (
        document
        for path, text in sorted(files.items())
        if path.endswith(".yaml")
        for document in yaml.safe_load_all(text)
    )
    notes = next((text for path, text in files.items() if path.endswith("NOTES.txt")), "")
    return Rendered(tuple(document for document in documents if document), notes)


@cache
def rendered(name: str) -> Rendered:
    """Return the rendering of one of the sets of values."""
    return render(values_of(name))
