"""The compose files agree with the code: queues, commands, settings, ports."""

import importlib.util
import re
from collections import Counter

import pytest

from citadel_contracts import Queue
from citadel_monitoring.exporter.settings import ExporterSettings
from citadel_orchestration.settings import ApiFragment, ApiSettings
from tests.support.documented import is_documented
from tests.unit.deploy.files import COMPOSE, OWN, ROOT, load, services

DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
LISTENING = ((ApiSettings, "api"), (ExporterSettings, "exporter"))
OVERRIDES = sorted(path.relative_to(COMPOSE).as_posix() for path in COMPOSE.glob("external/*.yaml"))


def module_of(name: str) -> str:
    """Return the command of a service, or of its image."""
    service = services()[name]
    image = re.search(r"\$\{(\w+)_IMAGE\}", service["image"]).group(1).lower()
    started = re.search(rf"AS run-{image}\n(?:EXPOSE .*\n)?CMD \[\"python\", \"-m\", \"(\w+)\"\]", DOCKERFILE).group(1)
    command = service.get("command", ["python", "-m", started])
    assert command[:2] == ["python", "-m"]
    assert command[2].startswith(f"citadel_{image}")
    return command[2]


def test_every_queue_has_exactly_one_worker():
    modules = Counter(module_of(name) for name in OWN)
    assert {queue.value: modules[f"citadel_{queue.value}"] for queue in Queue} == {queue.value: 1 for queue in Queue}


@pytest.mark.parametrize("name", sorted(OWN))
def test_commands_of_containers_are_modules_that_exist(name):
    assert importlib.util.find_spec(module_of(name))


@pytest.mark.parametrize("name", sorted(OWN))
def test_every_variable_is_documented(name):
    assert [variable for variable in services()[name]["environment"] if not is_documented(variable)] == []


@pytest.mark.parametrize("name", OVERRIDES)
def test_every_variable_of_an_override_is_documented(name):
    for service in load(name)["services"].values():
        variables = [one for one in service.get("environment") or {} if one.startswith(("CITADEL_", "OTEL_"))]
        assert [variable for variable in variables if not is_documented(variable)] == []


def test_prometheus_scrapes_the_ports_that_services_listen_on():
    config = (COMPOSE / "observability/prometheus/prometheus.yml").read_text(encoding="utf-8")
    ports = {int(port) for port in re.findall(r"port: (\d+)", config)}
    environment = services()["embeddings"]["environment"]
    metrics = int(environment["CITADEL_TELEMETRY__METRICS_PORT"])
    own = {
        metrics,
        ApiSettings.model_fields["api"].default.port,
        ExporterSettings.model_fields["exporter"].default.port,
    }
    assert own <= ports | {int(port) for port in re.findall(r"\w:(\d+)", config)}


def test_the_bundled_postgresql_takes_all_connections_that_the_processes_may_open():
    settings = ApiSettings(api=ApiFragment(workers=2, keyless="loopback"))
    pool = settings.postgres.pool_size
    assert {"orchestration", "maintenance", "monitoring", "exporter", "migrate"} <= set(services())
    needed = settings.postgres_connections + 2 * pool + 1 + 1 + 2
    [allowed] = re.findall(r"max_connections=(\d+)", services()["postgres"]["command"])
    # Twice as many: each service may be scaled up once without a change here.
    assert 2 * needed <= int(allowed) - 3
