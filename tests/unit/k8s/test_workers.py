"""One template renders every worker; a worker's own values override the defaults."""

import pytest

from tests.unit.k8s.rendering import CITADEL, VALUES, render, rendered


@pytest.mark.parametrize("name", VALUES)
def test_replicas_are_left_to_whoever_scales(name: str) -> None:
    scaled = {
        one["spec"]["scaleTargetRef"]["name"]
        for one in rendered(name).resources
        if one["kind"] in {"ScaledObject", "HorizontalPodAutoscaler"}
    }
    for deployment in rendered(name).of("Deployment").values():
        assert ("replicas" not in deployment["spec"]) == (deployment["metadata"]["name"] in scaled)


@pytest.mark.parametrize("name", VALUES)
def test_the_termination_grace_of_a_pod_is_longer_than_its_own_grace(name: str) -> None:
    for component, template in rendered(name).pods():
        if template["spec"]["containers"][0]["name"] not in CITADEL:
            continue
        environment = rendered(name).environment(component)
        own = environment.get("CITADEL_WORKER__STOP_GRACE") or environment.get("CITADEL_API__GRACEFUL_TIMEOUT") or 0
        assert template["spec"]["terminationGracePeriodSeconds"] >= int(own) + 10


@pytest.mark.parametrize("name", VALUES)
def test_selectors_select_their_own_pods_and_no_others(name: str) -> None:
    pods = [template["metadata"]["labels"] for _, template in rendered(name).pods()]
    for one in rendered(name).resources:
        if one["kind"] in {"Deployment", "StatefulSet", "PodDisruptionBudget"}:
            selector = one["spec"]["selector"]["matchLabels"].items()
            assert len([labels for labels in pods if selector <= labels.items()]) == 1


def test_a_pinned_worker_is_guaranteed_with_whole_cores() -> None:
    worker = rendered("pinned").of("Deployment")["embeddings"]
    (container,) = worker["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["requests"] == container["resources"]["limits"] == {"cpu": 2, "memory": "1Gi"}
    assert "initContainers" not in worker["spec"]["template"]["spec"]
    assert worker["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}
    assert worker["spec"]["template"]["spec"]["nodeSelector"] == {"citadel/pinned": "true"}


def test_a_second_worker_may_serve_the_same_queue() -> None:
    environment = rendered("edges").environment("batches")
    assert rendered("edges").container("batches")["image"] == "registry.example.org/ai/citadel-embeddings:1.2.3"
    assert environment["CITADEL_WORKER__BATCH_CONCURRENCY"] == "32"
    assert environment["CITADEL_CACHE__TTL"] == "86400"


def test_settings_of_a_process_count_before_those_of_all() -> None:
    assert rendered("edges").environment("embeddings")["CITADEL_CACHE__TTL"] == "3600"
    assert rendered("edges").environment("orchestration")["CITADEL_CACHE__TTL"] == "86400"


def test_a_disabled_worker_renders_nothing_and_the_notes_warn() -> None:
    made = render({"workers": {"monitoring": {"enabled": False}}})
    assert not [one for one in made.resources if one["metadata"]["name"] == "citadel-monitoring"]
    assert "NO WORKER SERVES THE QUEUE monitoring" in made.notes


@pytest.mark.parametrize("name", VALUES)
def test_workers_and_beat_are_probed_by_their_health_file(name: str) -> None:
    for component, template in rendered(name).pods():
        container = template["spec"]["containers"][0]
        if container["name"] not in {"worker", "beat"}:
            continue
        command = ["python", "-m", "citadel_common.probe", container["name"]]
        assert container["startupProbe"]["exec"]["command"] == container["livenessProbe"]["exec"]["command"] == command
        file = rendered(name).environment(component)[f"CITADEL_{container['name'].upper()}__HEALTH_FILE"]
        assert file.startswith("/run/citadel/")
        assert {"name": "run", "mountPath": "/run/citadel"} in container["volumeMounts"]


def test_the_api_is_restarted_for_its_own_sake_and_unready_for_its_stores() -> None:
    container = rendered("default").container("api")
    assert container["livenessProbe"]["httpGet"] == {"path": "/livez", "port": "http"}
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}


def test_pods_spread_over_zones_and_nodes() -> None:
    spec = dict(rendered("default").pods())["embeddings"]["spec"]
    keys = {one["topologyKey"] for one in spec["topologySpreadConstraints"]}
    assert keys == {"topology.kubernetes.io/zone", "kubernetes.io/hostname"}
    assert spec["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]


def test_priority_classes_put_serving_before_monitoring() -> None:
    classes = {name: one["value"] for name, one in rendered("edges").of("PriorityClass").items()}
    pods = {name: pod["spec"].get("priorityClassName") for name, pod in rendered("edges").pods()}
    assert classes[pods["api"].removeprefix("citadel-")] > classes[pods["monitoring"].removeprefix("citadel-")]


def test_disruption_budgets_let_one_pod_of_a_process_be_drained() -> None:
    budgets = rendered("default").of("PodDisruptionBudget")
    assert set(budgets) == {"api", "beat", "exporter", "embeddings", "orchestration", "monitoring", "maintenance"}
    assert {one["spec"]["maxUnavailable"] for one in budgets.values()} == {1}


def test_beat_has_two_candidates_by_default() -> None:
    assert rendered("default").of("Deployment")["beat"]["spec"]["replicas"] == 2


def test_the_migration_comes_before_an_upgrade_and_after_an_installation() -> None:
    job = rendered("default").of("Job")["migrate"]
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "post-install,pre-upgrade"
    assert job["spec"]["template"]["spec"]["restartPolicy"] == "Never"


def test_the_notes_say_what_is_for_trial_only() -> None:
    assert "FOR TRIAL ONLY: broker, cache, postgres, qdrant, ollama are bundled" in rendered("default").notes
    assert "FOR TRIAL ONLY" not in rendered("production").notes
