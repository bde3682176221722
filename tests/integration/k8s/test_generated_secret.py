"""A generated Secret keeps its values on upgrades, and new keys are added."""

import base64
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from tests.doubles.base.server import ServerThread
from tests.doubles.kubernetes import KubernetesDouble
from tests.unit.k8s.rendering import CHART, package

Cluster = tuple[KubernetesDouble, str]
"""Yield the double and its URL."""
Upgrade = Callable[[], dict[str, str]]


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    double = KubernetesDouble()
    server = ServerThread(double)
    yield double, server.url
    server.stop()


@pytest.fixture
def upgrade(cluster: Cluster) -> Upgrade:
    """Return a function that renders the chart for an upgrade in that cluster and returns the Secret's values."""
    helm = package("helm_python")
    kubeconfig = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "double", "cluster": {"server": cluster[1]}}],
        "contexts": [{"name": "double", "context": {"cluster": "double", "user": "double"}}],
        "users": [{"name": "double", "user": {}}],
        "current-context": "double",
    }

    def render() -> dict[str, str]:
        with helm.Config(kubeconfig_content=yaml.safe_dump(kubeconfig), namespace="citadel") as config:
            chart = helm.Chart.load(CHART)
            files = config.render(chart, {}, name="citadel", namespace="citadel", is_upgrade=True, revision=2)
        return data_of(yaml.safe_load(files["citadel/templates/secret.yaml"]))

    return render


def data_of(secret: dict[str, Any]) -> dict[str, str]:
    return {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}


def keep(cluster: Cluster, values: dict[str, str]) -> None:
    """Put a Secret with these values into the cluster."""
    cluster[0].secrets["citadel", "citadel"] = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "citadel", "namespace": "citadel"},
        "data": {key: base64.b64encode(value.encode()).decode() for key, value in values.items()},
    }


def test_generated_values_survive_an_upgrade(cluster: Cluster, upgrade: Upgrade) -> None:
    first = upgrade()
    keep(cluster, first)
    assert upgrade() == first
    assert "/api/v1/namespaces/citadel/secrets/citadel" in cluster[0].recording.other_requests


def test_without_a_cluster_new_values_are_generated_each_time(upgrade: Upgrade) -> None:
    assert upgrade()["api_key"] != upgrade()["api_key"]


def test_missing_keys_are_added_and_existing_values_stay(cluster: Cluster, upgrade: Upgrade) -> None:
    first = upgrade()
    keep(cluster, {key: value for key, value in first.items() if key != "metrics_key"})
    second = upgrade()
    assert len(second["metrics_key"]) == 40
    assert second["metrics_key"] != first["metrics_key"]
    assert {key: second[key] for key in ("api_key", "citadel_postgres_password")} == {
        key: first[key] for key in ("api_key", "citadel_postgres_password")
    }
