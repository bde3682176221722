"""Values of the previous version still work, and Kubernetes accepts the changes to its resources."""

from pathlib import Path
from typing import Any

import pytest

from tests.unit.k8s.rendering import VALUES, Rendered, render, values_of
from tests.unit.k8s.test_schemas import KUBERNETES, check

PREVIOUS = next((Path(__file__).parent / "previous").glob("citadel-*.tgz"))

NEWER = {"offline"}
"""Sets of values with keys that the previous version does not have."""


def fixed(rendered: Rendered) -> dict[tuple[str, str], Any]:
    """Return the immutable fields of each resource by kind and name."""
    return {
        (one["kind"], one["metadata"]["name"]): _fixed(one["kind"], one.get("spec", {})) for one in rendered.resources
    }


def _fixed(kind: str, spec: dict[str, Any]) -> Any:
    if kind == "Deployment":
        return spec["selector"]
    if kind == "StatefulSet":
        return {
            key: spec.get(key) for key in ("selector", "serviceName", "volumeClaimTemplates", "podManagementPolicy")
        }
    return None


@pytest.mark.parametrize("name", sorted(VALUES.keys() - NEWER))
def test_an_upgrade_changes_nothing_that_cannot_be_changed(name: str) -> None:
    before = fixed(render(values_of(name), PREVIOUS))
    after = fixed(render(values_of(name), is_upgrade=True, is_install=False, revision=2))
    stateful = {one for one in before if one[0] in {"StatefulSet", "Secret"}}
    assert stateful <= set(after)
    assert {one: before[one] for one in before if one in after} == {one: after[one] for one in after if one in before}


@pytest.mark.parametrize("name", VALUES)
def test_the_upgrade_is_valid_with_the_values_of_before(name: str) -> None:
    for resource in render(values_of(name), is_upgrade=True, is_install=False, revision=2).resources:
        check(resource, KUBERNETES[-1])


def test_the_previous_version_differs_from_this_one() -> None:
    assert PREVIOUS.name != f"citadel-{_version()}.tgz"


def _version() -> str:
    lines = (Path(__file__).parents[3] / "k8s/chart/Chart.yaml").read_text().splitlines()
    return next(line.split(": ")[1] for line in lines if line.startswith("version: "))
