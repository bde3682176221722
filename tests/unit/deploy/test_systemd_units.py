"""The files in systemd/ agree with contracts, settings, the plan of processors, and each other."""

import importlib.machinery
import importlib.util
import re
import subprocess
from importlib.util import find_spec

import pytest

from citadel_common.settings.common import EX_CONFIG, WorkerSettings
from citadel_common.worker.launch import GOODBYE, LAST_RESORT
from citadel_monitoring.exporter.settings import ExporterSettings
from citadel_orchestration.api.http.server import LAST_SECONDS
from citadel_orchestration.settings import ApiFragment
from tests.support.documented import is_documented
from tests.unit.deploy.files import load as compose_file
from tests.unit.deploy.unit_files import (
    NEWER,
    SERVICES,
    SYSTEMD,
    UNITS,
    WORKERS,
    cores,
    directives,
    environment,
    files,
    last,
)

LONG_LIVED = [unit for unit in SERVICES if unit != "citadel-migrate.service"]
HOST_COMMAND = (SYSTEMD / "citadel-host").read_text(encoding="utf-8")
ENV_FILE = (SYSTEMD / "citadel.env").read_text(encoding="utf-8")
README = (SYSTEMD / "README.md").read_text(encoding="utf-8")
HOSTS = (1, 2, 4, 6, 8, 12, 16, 32, 64)


@pytest.fixture(scope="module")
def planner():
    """Return the program that writes the drop-ins of processors."""
    loader = importlib.machinery.SourceFileLoader("citadel_host_cores", str(SYSTEMD / "cores"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    loader.exec_module(module)
    return module


def test_every_queue_has_exactly_one_worker():
    assert {folder.name for folder in UNITS.glob("citadel-worker@*.d")} == {f"{unit}.d" for unit in WORKERS.values()}
    installed = re.search(r"^readonly queues=\((.*)\)$", HOST_COMMAND, re.MULTILINE).group(1).split()
    assert sorted(installed) == sorted(WORKERS)
    assert all(find_spec(f"citadel_{queue}.__main__") for queue in WORKERS)


def test_every_service_is_installed_and_started_with_the_target():
    enabled = re.search(r"^readonly services=\((.*)\)$", HOST_COMMAND, re.MULTILINE).group(1).split()
    shipped = {file.name for file in UNITS.glob("*.service")}
    assert shipped == {f"{name}.service" for name in enabled} | {"citadel-worker@.service"}
    for unit in SERVICES:
        found = directives(unit)
        assert found["Install.WantedBy"] == found["Unit.PartOf"] == ["citadel.target"]
        assert last(found, "Slice") == "citadel.slice"


@pytest.mark.parametrize("unit", [unit for unit in SERVICES if "@" not in unit])
def test_commands_of_units_are_modules_that_exist(unit):
    program, option, module = last(directives(unit), "ExecStart").split()
    assert (program, option) == ("/opt/citadel/current/bin/python", "-m")
    spec = find_spec(module)
    assert spec
    assert not spec.submodule_search_locations or find_spec(f"{module}.__main__")


@pytest.mark.parametrize("unit", SERVICES)
def test_every_variable_is_a_setting(unit):
    for name in environment(unit):
        if name.startswith("CITADEL_") and name != "CITADEL_SECRETS_DIR":
            assert is_documented(name), name


def test_every_variable_of_the_configuration_and_the_guide_is_a_setting():
    named = set(re.findall(r"\bCITADEL_[A-Za-z_]*[A-Za-z]\b", ENV_FILE + README))
    named -= {"CITADEL_CORES", "CITADEL_SECRETS_DIR", "CITADEL_"}
    assert [name for name in named if not is_documented(name)] == []
    secrets = re.search(r"in lower case:\n#(.*)\n", ENV_FILE).group(1).split()
    assert [name for name in secrets if not is_documented(f"CITADEL_{name.upper()}")] == []


def test_units_read_the_hosts_settings_and_secrets():
    """Variables in the configuration file take precedence over those in a unit."""
    for unit in SERVICES:
        found = directives(unit)
        own = ["-/etc/citadel/migrate.env"] if unit == "citadel-migrate.service" else []
        assert sorted(found["Service.EnvironmentFile"]) == ["-/etc/citadel/citadel.env", *own]
        assert "LoadCredential=citadel:/etc/citadel/credentials" in files(unit)[1].read_text(encoding="utf-8")
        assert environment(unit)["CITADEL_SECRETS_DIR"] == "%d"
        assert environment(unit)["CITADEL_LOG__FORMAT"] == "json"


@pytest.mark.parametrize("unit", LONG_LIVED)
def test_every_service_is_watched_and_started_again(unit):
    found = directives(unit)
    assert last(found, "Type") == "notify"
    assert int(last(found, "WatchdogSec")) == WorkerSettings().dead_after
    assert last(found, "Restart") == "always"
    assert found["Unit.StartLimitIntervalSec"] == ["0"]
    assert last(found, "RestartPreventExitStatus") == str(EX_CONFIG)
    assert last(found, "KillMode") == "mixed"


def test_the_stop_grace_of_each_container_is_long_enough():
    worker = directives(WORKERS["embeddings"])
    assert int(last(worker, "TimeoutStopSec")) > WorkerSettings().stop_grace + LAST_RESORT + GOODBYE
    grace = ApiFragment().graceful_timeout
    assert int(last(directives("citadel-api.service"), "TimeoutStopSec")) > grace + LAST_SECONDS


def test_the_built_in_model_may_write_code():
    """If it is forbidden, the libraries compute vectors with NaN or infinity."""
    allowed = {unit: last(directives(unit), "MemoryDenyWriteExecute") for unit in SERVICES}
    assert [unit for unit, denied in allowed.items() if denied == "no"] == [WORKERS["embeddings"]]


def test_the_server_processes_of_the_api_may_say_that_they_serve():
    assert last(directives("citadel-api.service"), "NotifyAccess") == "all"


@pytest.mark.parametrize("unit", SERVICES)
def test_memory_is_limited_as_in_containers(unit):
    limits = compose_file("limits.yaml")["services"][re.sub(r"^citadel-(worker@)?|\.service$", "", unit)]
    found = directives(unit)
    allowed = limits["deploy"]["resources"]["limits"]
    assert last(found, "MemoryMax").lower() == allowed["memory"]
    assert last(found, "TasksMax") == str(allowed["pids"])


def test_processors_are_those_of_the_plan(planner):
    shipped = {str(file.relative_to(SYSTEMD)): file.read_text() for file in SYSTEMD.rglob("30-*.conf")}
    assert shipped == planner.drop_ins(16)
    assert {unit: last(directives(unit), "AllowedCPUs") for unit in SERVICES} == {
        "citadel-migrate.service": "2-3",
        "citadel-api.service": "2-3",
        "citadel-beat.service": "0",
        "citadel-exporter.service": "0",
        WORKERS["embeddings"]: "10-11",
        WORKERS["orchestration"]: "2-3",
        WORKERS["monitoring"]: "0",
        WORKERS["maintenance"]: "0",
    }


@pytest.mark.parametrize("host", HOSTS)
def test_processors_are_within_any_host(planner, host):
    for name, text in planner.drop_ins(host).items():
        own = cores(re.search(r"^AllowedCPUs=(.*)$", text, re.MULTILINE).group(1))
        quota = float(re.search(r"^CPUQuota=(.*)%$", text, re.MULTILINE).group(1))
        assert own <= set(range(host)), name
        assert 0 < quota <= len(own) * 100, name


def test_options_of_newer_systemd_versions_are_in_separate_files():
    newer = NEWER / "citadel-.service.d" / "40-back-off.conf"
    names = set(re.findall(r"^(\w+)=", newer.read_text(), re.MULTILINE))
    assert names == {"RestartSteps", "RestartMaxDelaySec"}
    for unit in SERVICES:
        assert not {f"Service.{name}" for name in names} & directives(unit).keys()


def test_the_guide_names_the_ports_that_services_listen_on():
    assert {int(port) for port in re.findall(r"127\.0\.0\.1:(\d+)/(?:v1|metrics|readyz|docs)", README)} == {
        ApiFragment().port,
        ExporterSettings().exporter.port,
    }


def test_the_host_command_without_arguments_prints_its_usage():
    done = subprocess.run([SYSTEMD / "citadel-host"], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    commands = re.search(r"^  ([a-z |]+)\) ;;$", HOST_COMMAND, re.MULTILINE).group(1).split(" | ")
    assert len(commands) == 4
    assert all(f"citadel-host {command}" in done.stdout for command in commands)
