"""Connections that NetworkPolicies allow, evaluated as Kubernetes does."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.unit.k8s.rendering import Rendered

OUTSIDE = "anyone"
CLUSTER = "cluster"
"""Any peer outside the release's pods."""


@dataclass(frozen=True, kw_only=True)
class Pod:
    """A component's pod with its labels and ports."""

    name: str
    labels: dict[str, str]
    ports: tuple[int, ...]


def pods_of(rendered: Rendered) -> list[Pod]:
    """Return the pods of a rendering."""
    return [
        Pod(
            name=name,
            labels=template["metadata"]["labels"],
            ports=tuple(
                port["containerPort"] for one in template["spec"]["containers"] for port in one.get("ports", ())
            ),
        )
        for name, template in rendered.pods()
    ]


class Policies:
    """The NetworkPolicies of a rendering."""

    def __init__(self, rendered: Rendered) -> None:
        self._policies = [one["spec"] for one in rendered.resources if one["kind"] == "NetworkPolicy"]
        self._pods = pods_of(rendered)

    def within(self) -> set[tuple[str, str, int]]:
        """Return caller, callee and port of all connections between pods of the release."""
        return {
            (caller.name, callee.name, port)
            for caller in self._pods
            for callee in self._pods
            for port in callee.ports
            if self._allows("egress", caller, callee, port) and self._allows("ingress", callee, caller, port)
        }

    def into(self) -> set[tuple[str, str, int]]:
        """Return peer, component and port of all connections from outside the release."""
        return {
            (who, pod.name, port)
            for pod in self._pods
            for rule in self._rules("ingress", pod)
            for who in self._outsiders(rule.get("from"))
            for port in pod.ports
            if port in _ports(rule)
        }

    def out_of(self) -> set[tuple[str, int]]:
        """Return component and port of all connections to the outside."""
        return {
            (pod.name, port)
            for pod in self._pods
            for rule in self._rules("egress", pod)
            if set(self._outsiders(rule.get("to")))
            for port in _ports(rule)
        }

    def _rules(self, direction: str, pod: Pod) -> Iterator[dict[str, Any]]:
        mine = [one for one in self._policies if matches(one["podSelector"], pod.labels)]
        assert any(direction.capitalize() in one["policyTypes"] for one in mine), f"{pod.name} is open: {direction}"
        for policy in mine:
            yield from policy.get(direction, ())

    def _allows(self, direction: str, pod: Pod, peer: Pod, port: int) -> bool:
        key = "to" if direction == "egress" else "from"
        return any(port in _ports(rule) and self._includes(rule.get(key), peer) for rule in self._rules(direction, pod))

    @staticmethod
    def _includes(peers: list[dict[str, Any]] | None, pod: Pod) -> bool:
        if peers is None:
            return True
        return any(
            "ipBlock" not in peer
            and matches(peer.get("podSelector", {}), pod.labels)
            and matches(peer.get("namespaceSelector", {}), {"kubernetes.io/metadata.name": "citadel"})
            for peer in peers
        )

    @staticmethod
    def _outsiders(peers: list[dict[str, Any]] | None) -> Iterator[str]:
        if peers is None:
            yield OUTSIDE
        for peer in peers or ():
            if "ipBlock" in peer or "namespaceSelector" in peer:
                names = peer.get("namespaceSelector", {}).get("matchLabels", {})
                yield names.get("kubernetes.io/metadata.name", CLUSTER)


def matches(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    """Return whether a label selector selects labels."""
    expressions = selector.get("matchExpressions", ())
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items()) and all(
        (labels.get(one["key"]) in one["values"]) == (one["operator"] == "In") for one in expressions
    )


def _ports(rule: dict[str, Any]) -> set[int]:
    return {one["port"] for one in rule["ports"]}
