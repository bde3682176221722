"""The values that k8s/README.md shows for what stands in front of the API."""

import re

import pytest
import yaml

from tests.unit.k8s.rendering import ROOT, render


def shown() -> list[str]:
    """Return the blocks of values of the section on Ingress and gateways."""
    text = (
        (ROOT / "k8s/README.md").read_text(encoding="utf-8").split("### Ingress and gateways\n")[1].split("\n### ")[0]
    )
    return re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)


@pytest.mark.parametrize("block", shown(), ids=lambda block: re.findall(r"className: (\w+)|$", block)[0] or "gateway")
def test_the_values_reach_the_route_as_they_are_written(block):
    values = yaml.safe_load(block)
    rendered = render(values)
    if "ingress" in values:
        route = rendered.of("Ingress")["api"]
        assert route["metadata"]["annotations"] == values["ingress"]["annotations"]
        assert all(isinstance(value, str) for value in route["metadata"]["annotations"].values())
        assert route["spec"]["ingressClassName"] == values["ingress"]["className"]
    else:
        (rule,) = rendered.of("HTTPRoute")["api"]["spec"]["rules"]
        assert rule["timeouts"] == {"request": values["httpRoute"]["requestTimeout"]}
