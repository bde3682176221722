"""Every pod meets the restricted level of Kubernetes' pod security standards, and gets only what it needs."""

from typing import Any

import pytest

from tests.unit.k8s.rendering import CITADEL, VALUES, rendered

ALLOWED_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}


def containers(spec: dict[str, Any]) -> list[dict[str, Any]]:
    return [*spec["containers"], *spec.get("initContainers", ())]


@pytest.mark.parametrize("name", VALUES)
def test_every_pod_is_restricted(name: str) -> None:
    for _, template in rendered(name).pods():
        spec = template["spec"]
        assert not {"hostNetwork", "hostPID", "hostIPC", "hostUsers"} & set(spec)
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] > 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for volume in spec["volumes"]:
            assert set(volume) - {"name"} <= ALLOWED_VOLUMES
        for container in containers(spec):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert not any("hostPort" in port for port in container.get("ports", ()))


@pytest.mark.parametrize("name", VALUES)
def test_no_pod_has_a_token_or_variables_of_services(name: str) -> None:
    for account in rendered(name).of("ServiceAccount").values():
        assert account["automountServiceAccountToken"] is False
    for _, template in rendered(name).pods():
        assert template["spec"]["automountServiceAccountToken"] is False
        assert template["spec"]["enableServiceLinks"] is False
    assert not [one for one in rendered(name).resources if one["kind"].endswith(("Role", "RoleBinding"))]


@pytest.mark.parametrize("name", VALUES)
def test_memory_is_limited_and_processors_are_asked_for(name: str) -> None:
    for _, template in rendered(name).pods():
        for container in containers(template["spec"]):
            assert container["resources"]["limits"]["memory"]
            assert container["resources"]["requests"]["cpu"]


def secrets_of(name: str, component: str) -> set[str]:
    spec = dict(rendered(name).pods())[component]["spec"]
    (volume,) = [one["secret"] for one in spec["volumes"] if "secret" in one]
    return {item["key"] for item in volume["items"]}


def test_each_process_sees_only_secrets_of_servers_that_it_calls() -> None:
    assert secrets_of("default", "beat") == {"citadel_broker_password"}
    assert secrets_of("default", "migrate") == {"citadel_postgres_password"}
    assert secrets_of("default", "embeddings") == {"citadel_broker_password", "citadel_cache_password"}
    kinds = ("api_key", "headers", "proxy")
    assert secrets_of("external", "orchestration") == {
        "citadel_broker_password",
        "citadel_result_password",
        "citadel_postgres_password",
        *(f"citadel_qdrant__{kind}" for kind in kinds),
        *(f"citadel_llm__endpoints__main__{kind}" for kind in kinds),
    }
    assert "citadel_embeddings__backends__hosted__api_key" in secrets_of("external", "embeddings")
    holders = {name for name, _ in rendered("default").pods() if "citadel_api__keys" in _any_secrets(name)}
    assert holders == {"api"}


def _any_secrets(component: str) -> set[str]:
    spec = dict(rendered("default").pods())[component]["spec"]
    return {item["key"] for one in spec["volumes"] for item in one.get("secret", {}).get("items", ())}


@pytest.mark.parametrize("name", VALUES)
def test_no_secret_is_in_an_environment_or_a_command(name: str) -> None:
    for component, template in rendered(name).pods():
        for container in containers(template["spec"]):
            for variable in container.get("env", ()):
                if container["name"] in CITADEL:
                    assert "secretKeyRef" not in variable.get("valueFrom", {}), component
                assert not variable["name"].endswith(("PASSWORD", "__KEYS"))
