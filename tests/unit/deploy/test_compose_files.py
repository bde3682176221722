"""Rules for every container of the stack."""

import re

import pytest
import yaml

from compose.cpu_plan.budget import CONTAINERS, CORES
from compose.cpu_plan.plan import plan, variables
from tests.unit.deploy.files import COMPOSE, JOBS, LAYERS, OWN, ROOT, defaults, images, load, seconds, services

ALL = services()
NO_PROBE = {"otel-collector", "loki"}
"""Their images contain no program for a health check."""
PUBLISHED = {"api", "proxy", "grafana"}
INTERNAL = {"data", "observability"}


@pytest.mark.parametrize("name", sorted(ALL))
class TestEveryContainer:
    def test_has_limits_of_processors_memory_and_processes(self, name):
        limits = ALL[name]["deploy"]["resources"]["limits"]
        assert {"cpus", "memory", "pids"} <= set(limits)
        assert ALL[name]["cpuset"]

    def test_has_no_privilege(self, name):
        assert ALL[name]["cap_drop"] == ["ALL"]
        assert "cap_add" not in ALL[name]
        assert ALL[name]["security_opt"] == ["no-new-privileges:true"]
        assert ALL[name]["read_only"] is True

    def test_is_restarted_when_it_dies(self, name):
        assert ALL[name]["restart"] == ("on-failure:5" if name in JOBS else "unless-stopped")

    def test_has_logs_that_end_somewhere(self, name):
        assert {"max-size", "max-file"} <= set(ALL[name]["logging"]["options"])

    def test_has_a_health_check(self, name):
        if name in JOBS:
            assert ALL[name]["healthcheck"] == {"disable": True}
        elif name not in NO_PROBE:
            assert {"test", "interval", "timeout", "retries", "start_period"} <= set(ALL[name]["healthcheck"])

    def test_can_be_scaled(self, name):
        assert "container_name" not in ALL[name]
        assert ("ports" in ALL[name]) == (name in PUBLISHED)

    def test_has_an_image_of_the_one_file(self, name):
        named = defaults(ALL[name]["image"])
        assert named
        assert named.keys() <= images().keys()

    def test_names_its_networks(self, name):
        assert set(ALL[name]["networks"]) <= {"edge", "app", "data", "observability"}


def test_ports_are_published_on_loopback_by_default():
    for name in PUBLISHED:
        assert [port.startswith("${CITADEL_BIND:-127.0.0.1}:") for port in ALL[name]["ports"]] == [True]


def test_only_what_is_published_meets_the_edge_and_stores_reach_nothing_outside():
    networks = load("networks.yaml")["networks"]
    assert {name for name, network in networks.items() if network.get("internal")} == INTERNAL
    assert {name for name in ALL if "edge" in ALL[name]["networks"]} == PUBLISHED
    for store in ("redis", "redis-cache", "postgres", "qdrant"):
        assert ALL[store]["networks"] == ["data"]


def test_images_have_a_tag_each_and_never_the_latest():
    for name, image in images().items():
        if name.endswith("_IMAGE") and not image.startswith("citadel-"):
            assert re.fullmatch(r"[a-z0-9./-]+:v?\d[\w.-]*", image), name


def test_stop_timeouts_exceed_the_grace_of_each_process():
    """A worker that still runs after its grace ends itself ten seconds later."""
    for name in ("embeddings", "orchestration", "monitoring", "maintenance"):
        assert (
            seconds(ALL[name]["stop_grace_period"]) > float(ALL[name]["environment"]["CITADEL_WORKER__STOP_GRACE"]) + 10
        )
    api = ALL["api"]
    assert seconds(api["stop_grace_period"]) > float(api["environment"]["CITADEL_API__GRACEFUL_TIMEOUT"]) + 10


@pytest.mark.parametrize("name", sorted(OWN - {"migrate"}))
def test_citadels_services_wait_for_healthy_stores(name):
    needs = ALL[name]["depends_on"]
    assert needs["redis"] == {"condition": "service_healthy", "required": False}
    if name in {"api", "orchestration", "maintenance"}:
        assert needs["migrate"] == {"condition": "service_completed_successfully"}


def test_no_secret_is_in_an_environment():
    for name, service in ALL.items():
        for variable, value in service.get("environment", {}).items():
            assert "@" not in str(value).replace("citadel@postgres", ""), f"{name}: {variable}"
            if re.search("PASSWORD|SECRET|_KEY$|TOKEN", variable):
                assert str(value).startswith("/run/secrets/"), f"{name}: {variable}"


def test_secrets_are_named_as_the_settings_that_they_are():
    for name in OWN:
        for secret in ALL[name]["secrets"]:
            assert secret["target"].startswith("citadel_"), name


class TestLimits:
    def test_without_a_plan_processors_are_those_of_sixteen_cores(self):
        named: dict[str, str] = {}
        for layer in (*LAYERS, "limits"):
            named |= defaults((COMPOSE / f"{layer}.yaml").read_text())
        planned = variables(plan(CORES))
        assert {name: named.get(name) for name in planned} == planned

    def test_every_service_is_in_the_budget_and_nothing_else_is(self):
        assert {container.service for container in CONTAINERS} == set(ALL) == set(load("limits.yaml")["services"])

    def test_a_service_has_its_own_limit_and_its_groups_processors(self):
        for container in CONTAINERS:
            service = ALL[container.service]
            variable = f"CITADEL_CPUS_{container.service.upper().replace('-', '_')}"
            assert variable in service["deploy"]["resources"]["limits"]["cpus"]
            assert f"CITADEL_CPUSET_{container.group.upper()}" in service["cpuset"]


def test_the_plan_is_read_where_it_is_written():
    """Compose reads `.env` beside an included file; it is a link to the file that `make cpu-plan` writes."""
    assert (COMPOSE / ".env").readlink().name == "cpu.env"


def test_generated_files_are_ignored_by_git():
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert {"compose/cpu.env", "compose/secrets/", "/.env"} <= set(ignored)


def test_prometheus_presents_the_key_that_it_is_given():
    prometheus = yaml.safe_load((COMPOSE / "observability" / "prometheus" / "prometheus.yml").read_text())
    api = next(job for job in prometheus["scrape_configs"] if job["job_name"] == "citadel-api")
    assert api["authorization"] == {"credentials_file": "/run/secrets/metrics_key"}
    assert "metrics_key" in ALL["prometheus"]["secrets"]


def test_who_sends_spans_stops_before_the_server_that_stores_them():
    """Compose stops a service after those that depend on it."""
    after = {"condition": "service_started", "required": False}
    for name in OWN - {"migrate"}:
        assert ALL[name]["depends_on"]["otel-collector"] == after
    for name, servers in {
        "otel-collector": {"tempo", "loki"},
        "tempo": {"prometheus"},
        "grafana": {"tempo", "loki", "prometheus"},
    }.items():
        assert ALL[name]["depends_on"] == dict.fromkeys(servers, after)


def test_tempo_has_the_time_that_it_takes_to_stop():
    tempo = load("observability/tempo.yaml")
    takes = seconds(tempo["shutdown_delay"]) + seconds(tempo["backend_worker"]["finish_on_shutdown_timeout"])
    assert seconds(ALL["tempo"]["stop_grace_period"]) > takes + 10
