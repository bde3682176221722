"""The chart agrees with the code: queues, settings, ports, paths."""

import importlib.util
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from citadel_common.settings.common import CommonSettings
from citadel_common.settings.embeddings import BackendSettings
from citadel_common.settings.llm import EndpointSettings
from citadel_contracts import Queue
from citadel_embeddings.settings import EmbeddingsSettings
from citadel_maintenance.beat.settings import BeatSettings
from citadel_maintenance.settings import MaintenanceSettings
from citadel_monitoring.exporter.server import application
from citadel_monitoring.exporter.settings import ExporterSettings
from citadel_monitoring.settings import MonitoringSettings
from citadel_orchestration.api.operations import routes as operations
from citadel_orchestration.settings import ApiSettings, EngineSettings, OrchestrationSettings
from tests.support.documented import is_documented
from tests.unit.k8s.rendering import CHART, CITADEL, ROOT, VALUES, render, rendered

SETTINGS: dict[str, type[CommonSettings]] = {
    "citadel_embeddings": EmbeddingsSettings,
    "citadel_orchestration": OrchestrationSettings,
    "citadel_orchestration.api": ApiSettings,
    "citadel_orchestration.migrate": EngineSettings,
    "citadel_monitoring": MonitoringSettings,
    "citadel_monitoring.exporter": ExporterSettings,
    "citadel_maintenance": MaintenanceSettings,
    "citadel_maintenance.beat": BeatSettings,
}
CERTIFICATES = "/etc/citadel/certificates"
KEYS = json.dumps([{"name": "a", "hash": "0" * 64, "scopes": ["read"]}])


def processes(name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield component and container of each Citadel process."""
    for component, template in rendered(name).pods():
        container = template["spec"]["containers"][0]
        if container["name"] in CITADEL:
            yield component, container


def test_every_queue_has_exactly_one_worker() -> None:
    served = Counter(container["args"][2] for _, container in processes("default") if container["name"] == "worker")
    assert served == {f"citadel_{queue.value}": 1 for queue in Queue}


@pytest.mark.parametrize("name", VALUES)
def test_commands_are_modules_of_the_image(name: str) -> None:
    for _, container in processes(name):
        module = container["args"][2]
        assert container["args"][:2] == ["python", "-m"]
        assert importlib.util.find_spec(module) is not None
        assert re.search(rf"/?[a-z-]*{module.split('.')[0].removeprefix('citadel_')}:", container["image"])


@pytest.mark.parametrize(("key", "settings"), [("backend", BackendSettings), ("endpoint", EndpointSettings)])
def test_every_setting_of_a_server_has_a_key_or_a_place_in_the_secret(key: str, settings: type[BaseModel]) -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())["$defs"][key]["properties"]
    in_secret = {"api_key", "headers", "proxy"}
    assert {re.sub("(?<!^)([A-Z])", r"_\1", name).lower() for name in schema} | in_secret == set(settings.model_fields)


def test_a_server_is_set_up_from_the_secret_and_the_volume_of_certificates() -> None:
    backend = {"kind": "openai", "urls": ["https://models"], "revision": "7", "caFile": f"{CERTIFICATES}/ca.pem"}
    made = render({"backends": {"b": backend}, "certificates": {"configMap": {"name": "authorities"}}})
    environment = made.environment("embeddings")
    assert environment["CITADEL_EMBEDDINGS__BACKENDS__b__CA_FILE"] == f"{CERTIFICATES}/ca.pem"
    assert environment["CITADEL_EMBEDDINGS__BACKENDS__b__REVISION"] == "7"
    for process in ("api", "embeddings", "orchestration", "monitoring"):
        mounts = {one["mountPath"]: one["name"] for one in made.container(process)["volumeMounts"]}
        volume = next(
            one for one in dict(made.pods())[process]["spec"]["volumes"] if one["name"] == mounts[CERTIFICATES]
        )
        assert volume["configMap"] == {"name": "authorities"}


@pytest.mark.parametrize("name", VALUES)
def test_every_variable_is_documented(name: str) -> None:
    set_ = {variable["name"] for _, container in processes(name) for variable in container["env"]}
    unknown = {one for one in set_ if not is_documented(one)}
    assert unknown <= {"POD_NAME", "POD_NAMESPACE"}


@pytest.mark.parametrize("name", VALUES)
def test_every_process_accepts_its_environment(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for component, container in processes(name):
        with monkeypatch.context() as patch:
            for variable, value in rendered(name).environment(component).items():
                patch.setenv(variable, value)
            patch.setenv("CITADEL_SECRETS_DIR", str(tmp_path))
            if component == "api":
                patch.setenv("CITADEL_API__KEYS", KEYS)
            SETTINGS[container["args"][2]]()


@pytest.mark.parametrize("name", VALUES)
def test_secret_files_are_settings_of_their_process(name: str) -> None:
    for component, template in rendered(name).pods():
        if template["spec"]["containers"][0]["name"] in CITADEL:
            (volume,) = [one["secret"] for one in template["spec"]["volumes"] if "secret" in one]
            for item in volume["items"]:
                assert is_documented(item["path"].upper()), component


@pytest.mark.parametrize("name", VALUES)
def test_ports_are_those_that_the_processes_listen_on(name: str) -> None:
    variables = {"api": "CITADEL_API__PORT", "exporter": "CITADEL_EXPORTER__PORT"}
    for component, container in processes(name):
        if container["name"] == "migrate":
            assert "ports" not in container
            continue
        variable = variables.get(container["name"], "CITADEL_TELEMETRY__METRICS_PORT")
        (port,) = container["ports"]
        assert str(port["containerPort"]) == rendered(name).environment(component)[variable]
        assert rendered(name).environment(component)[re.sub("PORT$", "HOST", variable)] == "0.0.0.0"


def paths(container: dict[str, Any]) -> set[str]:
    """Return the paths of a container's HTTP probes."""
    found = (container.get(f"{kind}Probe", {}).get("httpGet", {}).get("path") for kind in _PROBES)
    return {path for path in found if path}


_PROBES = ("startup", "liveness", "readiness")


def test_probed_paths_of_api_and_exporter_exist() -> None:
    routes = {route.path for route in operations.router.routes}
    assert paths(rendered("default").container("api")) | {"/metrics"} <= routes
    app, answers = application(_Nothing()), []
    for path in paths(rendered("default").container("exporter")) | {"/metrics"}:
        app({"PATH_INFO": path, "REQUEST_METHOD": "GET"}, lambda status, _: answers.append(status))
    assert answers == ["200 OK", "200 OK"]


class _Nothing:
    def collect(self) -> list[Any]:
        return []


@pytest.mark.parametrize("name", VALUES)
def test_services_lead_to_ports_that_exist(name: str) -> None:
    pods = [(pod["metadata"]["labels"], pod["spec"]["containers"]) for _, pod in rendered(name).pods()]
    for service in rendered(name).of("Service").values():
        selector = service["spec"]["selector"].items()
        (containers,) = [containers for labels, containers in pods if selector <= labels.items()]
        names = {port["name"] for container in containers for port in container["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= names


def test_urls_lead_to_services_of_the_chart() -> None:
    made = rendered("default")
    services = {one["metadata"]["name"]: one["spec"]["ports"][0]["port"] for one in made.of("Service").values()}
    for component in ("monitoring", "api"):
        environment = made.environment(component)
        urls = {value for value in environment.values() if "://" in value}
        assert urls
        for url in urls:
            host, port = re.fullmatch(r"\w+://(?:\w+@)?([\w-]+):(\d+).*", url).groups()
            assert services[host] == int(port)


def test_ollama_loads_models_of_files_and_of_the_internet_before_it_serves() -> None:
    """The script itself runs in tests/deploy, with a real Ollama."""
    script = (ROOT / "compose" / "load-models").read_text()
    for name, arguments in (("default", ["", "nomic-embed-text"]), ("offline", ["/models"])):
        (init,) = dict(rendered(name).pods())["ollama"]["spec"]["initContainers"]
        assert init["command"][2].endswith(script)
        assert init["command"][4:] == arguments
        mounts = {mount["mountPath"] for mount in init["volumeMounts"]}
        assert ("/models" in mounts) == (name == "offline")
