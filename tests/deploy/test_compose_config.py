"""Compose reads every documented combination of files and profiles. It needs Docker's command, no engine."""

import itertools
import json
import os
import re
import subprocess

import pytest

from tests.deploy.engine import ROOT, SECONDS, require_engine, run

pytestmark = pytest.mark.deploy
OVERRIDES = ("gpu", "external/ollama", "external/llm", "external/qdrant", "external/postgres")
SETTINGS = {
    "CITADEL_OLLAMA_URLS": "http://gpu1:11434,http://gpu2:11434",
    "CITADEL_OLLAMA_LLM_URL": "http://gpu1:11434",
    "CITADEL_LLM_URL": "https://llm.example/v1",
    "CITADEL_LLM_MAIN_MODEL": "large",
    "CITADEL_LLM_KEY_FILE": "/keys/llm",
    "CITADEL_QDRANT_URL": "https://qdrant.example:6333",
    "CITADEL_QDRANT_KEY_FILE": "/keys/qdrant",
    "CITADEL_POSTGRES_DSN": "postgresql://citadel@db.example:5432/citadel",
    "CITADEL_POSTGRES_PASSWORD_FILE": "/keys/postgres",
}
SUBSETS = [subset for size in range(len(OVERRIDES) + 1) for subset in itertools.combinations(OVERRIDES, size)]
COMBINATIONS = [subset for subset in SUBSETS if not {"gpu", "external/ollama"} <= set(subset)]


@pytest.fixture(autouse=True, scope="module")
def compose():
    """Docker's command with Compose."""
    require_engine(running=False)


def config(overrides: tuple[str, ...] = (), *profiles: str, **settings: str) -> "subprocess.CompletedProcess[str]":
    files = ["compose.yaml", *(f"compose/{name}.yaml" for name in overrides)]
    options = [word for name in files for word in ("-f", name)]
    options += [word for profile in profiles for word in ("--profile", profile)]
    own = {name: value for name, value in os.environ.items() if not name.startswith(("CITADEL_", "COMPOSE_"))}
    return subprocess.run(
        ["docker", "compose", *options, "config", "--format", "json"],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
        cwd=ROOT,
        env=own | settings,
    )


def read(overrides: tuple[str, ...] = (), *profiles: str, **settings: str) -> dict:
    done = config(overrides, *profiles, **(SETTINGS | settings))
    assert done.returncode == 0, done.stderr
    assert "warn" not in done.stderr.lower(), done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("profiles", [(), ("observability",)], ids=["plain", "observability"])
@pytest.mark.parametrize("overrides", COMBINATIONS, ids=lambda names: "+".join(names) or "alone")
def test_compose_reads_the_files_and_every_container_is_limited(overrides, profiles):
    services = read(overrides, *profiles)["services"]
    for name, service in services.items():
        assert service["cap_drop"] == ["ALL"], name
        assert {"cpus", "memory", "pids"} <= set(service["deploy"]["resources"]["limits"]), name
        assert all(port["host_ip"] == "127.0.0.1" for port in service.get("ports", [])), name
    assert ("grafana" in services) == bool(profiles)
    for override, own in (("ollama", {"ollama", "ollama-models"}), ("qdrant", {"qdrant"}), ("postgres", {"postgres"})):
        assert own.isdisjoint(services) == (f"external/{override}" in overrides)


def test_the_stack_needs_no_variable():
    assert config().returncode == 0


@pytest.mark.parametrize("override", [name for name in OVERRIDES if name != "gpu"])
def test_an_override_names_the_variables_that_it_needs(override):
    done = config((override,))
    assert done.returncode != 0
    assert "set it to" in done.stderr


def test_ollama_on_other_hosts_chooses_its_own_threads():
    services = read(("external/ollama",))["services"]
    for name in ("embeddings", "monitoring", "orchestration", "api"):
        environment = services[name]["environment"]
        assert not [variable for variable in environment if variable.endswith("THREADS")]
    assert services["embeddings"]["environment"]["CITADEL_EMBEDDINGS__BACKENDS__ollama__URLS"].count("http") == 2


def test_services_that_use_postgres_elsewhere_can_reach_other_hosts():
    services = read(("external/postgres",))["services"]
    for name in ("migrate", "api", "orchestration", "monitoring", "exporter", "maintenance"):
        assert "app" in services[name]["networks"]
        assert services[name]["environment"]["CITADEL_POSTGRES_DSN"] == SETTINGS["CITADEL_POSTGRES_DSN"]


def test_variables_change_the_published_address_and_port():
    (port,) = read(CITADEL_BIND="0.0.0.0", CITADEL_PORT="80")["services"]["api"]["ports"]
    assert (port["host_ip"], port["published"]) == ("0.0.0.0", "80")


def test_tracing_can_be_turned_off():
    found = read(CITADEL_OTLP_ENDPOINT="")["services"]["api"]["environment"]
    assert found["OTEL_EXPORTER_OTLP_ENDPOINT"] == ""


def test_the_guides_settings_for_a_host_without_the_internet_pull_nothing(tmp_path):
    guide = (ROOT / "compose" / "README.md").read_text()
    (settings,) = [block for block in re.findall(r"```sh\n(.*?)```", guide, re.DOTALL) if "CITADEL_MODELS=" in block]
    (tmp_path / ".env").write_text(settings)
    for name in ("compose.yaml", "compose"):
        (tmp_path / name).symlink_to(ROOT / name)
    command = ["docker", "compose", "--project-directory", str(tmp_path), "config", "--format", "json"]
    services = json.loads(run(*command, cwd=tmp_path))["services"]
    assert not services["ollama-models"]["command"]
    assert services["api"]["environment"]["CITADEL_DEFAULT_MODEL"] == "all-minilm"
    assert services["api"]["environment"]["CITADEL_LLM__ENDPOINTS__ollama__MODEL"] == "llama3.2:3b"


def test_models_come_from_files_alone_where_nothing_is_to_be_pulled(tmp_path):
    job = read(CITADEL_MODELS="", CITADEL_MODEL_FILES=str(tmp_path))["services"]["ollama-models"]
    assert not job["command"]
    assert (str(tmp_path), "/models", True) in {
        (volume["source"], volume["target"], volume.get("read_only", False)) for volume in job["volumes"]
    }
