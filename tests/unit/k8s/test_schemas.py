"""All resources match the schemas of Kubernetes, oldest to newest, and of the operators."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.unit.k8s.rendering import CHART, VALUES, package, rendered, values_of

KUBERNETES = ("1.29", "1.33", "1.37")
FOREIGN = {path.stem: json.loads(path.read_text()) for path in (Path(__file__).parent / "schemas").glob("*.json")}


def check(resource: dict[str, Any], version: str) -> None:
    """Validate a resource; raise jsonschema.ValidationError for a wrong or unknown field."""
    _check(json.dumps(resource, sort_keys=True), version)


@cache
def _check(text: str, version: str) -> None:
    resource = json.loads(text)
    foreign = FOREIGN.get(resource["kind"].lower())
    if foreign is not None:
        jsonschema.Draft202012Validator(foreign).validate(resource)
    else:
        package("kubernetes_validate").validate(resource, version, strict=True)


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("name", VALUES)
def test_every_resource_is_valid(name: str, version: str) -> None:
    resources = rendered(name).resources
    assert len(resources) > 15
    for resource in resources:
        check(resource, version)


@pytest.mark.parametrize("name", VALUES)
def test_names_are_unique_and_short_enough(name: str) -> None:
    names = [(one["kind"], one["metadata"]["name"]) for one in rendered(name).resources]
    assert len(set(names)) == len(names)
    assert all(len(own) <= 63 for _, own in names)


@pytest.mark.parametrize("name", VALUES)
def test_helm_lint_finds_no_problem(name: str) -> None:
    report = package("helm_python").lint(CHART, values_of(name), strict=True, namespace="citadel")
    said = [message for message in report["messages"] if message["severity"] > 1]
    assert said == []
    assert not report["errors"]


@pytest.mark.parametrize("kind", ["scaledobject", "podmonitor", "prometheusrule"])
def test_an_unknown_field_of_a_foreign_resource_is_found(kind: str) -> None:
    name = "keda" if kind == "scaledobject" else "observability"
    resource = next(one for one in rendered(name).resources if one["kind"].lower() == kind)
    with pytest.raises(jsonschema.ValidationError):
        check({**resource, "spec": {**resource["spec"], "unheardOf": 1}}, KUBERNETES[0])
