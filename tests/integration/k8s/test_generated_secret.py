"""A Secret that the chart generated stays as it is on upgrades; what a new version adds is generated then."""

import base64
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from tests.doubles.kubernetes import KubernetesDouble
from tests.unit.k8s.rendering import CHART, package

Upgrade = Callable[[], dict[str, str]]


@pytest.fixture
def cluster() -> Iterator[KubernetesDouble]:
    server = KubernetesDouble({})
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def upgrade(cluster: KubernetesDouble) -> Upgrade:
    """Renders the chart for an upgrade in that cluster; the Secret's values."""
    helm = package("helm_python")
    kubeconfig = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "double", "cluster": {"server": cluster.url}}],
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


def keep(cluster: KubernetesDouble, values: dict[str, str]) -> None:
    """Puts a Secret with these values into the cluster."""
    cluster.secrets["citadel", "citadel"] = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "citadel", "namespace": "citadel"},
        "data": {key: base64.b64encode(value.encode()).decode() for key, value in values.items()},
    }


def test_generated_values_stay(cluster: KubernetesDouble, upgrade: Upgrade) -> None:
    first = upgrade()
    keep(cluster, first)
    assert upgrade() == first
    assert "/api/v1/namespaces/citadel/secrets/citadel" in cluster.asked


def test_without_one_new_values_are_made_each_time(upgrade: Upgrade) -> None:
    assert upgrade()["api_key"] != upgrade()["api_key"]


def test_what_is_missing_is_added_and_the_rest_stays(cluster: KubernetesDouble, upgrade: Upgrade) -> None:
    first = upgrade()
    keep(cluster, {key: value for key, value in first.items() if key != "metrics_key"})
    second = upgrade()
    assert len(second["metrics_key"]) == 40
    assert second["metrics_key"] != first["metrics_key"]
    assert {key: second[key] for key in ("api_key", "citadel_postgres_password")} == {
        key: first[key] for key in ("api_key", "citadel_postgres_password")
    }
