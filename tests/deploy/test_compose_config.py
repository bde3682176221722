"""Compose reads every documented combination of files and profiles. It needs Docker's command, no engine."""

import json
import os
import re
import subprocess

import pytest

from citadel_contracts.outbound import proxy_of
from tests.deploy.engine import ROOT, SECONDS, require_engine, run
from tests.deploy.guide import override_of
from tests.unit.deploy.files import images

pytestmark = pytest.mark.deploy
OVERRIDES = (
    *("gpu", "proxy", "external/ollama", "external/llm", "external/qdrant", "external/postgres"),
    *("external/redis", "external/otlp"),
)
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
    "CITADEL_BROKER_URL": "rediss://redis.example:6380/0",
    "CITADEL_BROKER_PASSWORD_FILE": "/keys/broker",
    "CITADEL_CACHE_URL": "rediss://redis.example:6381/0",
    "CITADEL_CACHE_PASSWORD_FILE": "/keys/cache",
    "CITADEL_OTLP_ENDPOINT": "https://otlp.example:4318",
}
SINGLE = [(), *((one,) for one in OVERRIDES)]
TOGETHER = [tuple(one for one in OVERRIDES if one != left_out) for left_out in ("gpu", "external/ollama")]


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
@pytest.mark.parametrize("overrides", SINGLE + TOGETHER, ids=lambda names: "+".join(names) or "alone")
def test_compose_reads_the_files_and_every_container_is_limited(overrides, profiles):
    services = read(overrides, *profiles)["services"]
    for name, service in services.items():
        assert service["cap_drop"] == ["ALL"], name
        assert {"cpus", "memory", "pids"} <= set(service["deploy"]["resources"]["limits"]), name
        assert all(port["host_ip"] == "127.0.0.1" for port in service.get("ports", [])), name
    assert ("grafana" in services) == bool(profiles)
    assert [name for name in ("api", "proxy") if services.get(name, {}).get("ports")] == [
        "proxy" if "proxy" in overrides else "api"
    ]
    for override, own in (
        ("ollama", {"ollama", "ollama-models"}),
        ("qdrant", {"qdrant"}),
        ("postgres", {"postgres"}),
        ("redis", {"redis", "redis-cache"}),
    ):
        assert own.isdisjoint(services) == (f"external/{override}" in overrides)


def test_the_stack_needs_no_variable():
    assert config().returncode == 0


@pytest.mark.parametrize("override", [name for name in OVERRIDES if "/" in name])
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


def with_own_files(directory, **texts: str) -> dict:
    """Return the project that Compose reads where the user has written files of these names beside compose.yaml."""
    for name, text in texts.items():
        (directory / name).write_text(text)
    for name in ("compose.yaml", "compose"):
        (directory / name).symlink_to(ROOT / name)
    command = ["docker", "compose", "--project-directory", str(directory), "config", "--format", "json"]
    return json.loads(run(*command, cwd=directory))


def with_override(directory, section: str) -> dict:
    return with_own_files(directory, **{"compose.override.yaml": override_of(section)})


PROCESSES = {"api", "embeddings", "orchestration", "monitoring", "maintenance", "beat", "exporter"}


def test_an_override_of_the_guide_sets_any_variable_of_every_process(tmp_path):
    services = with_override(tmp_path, "Any variable")["services"]
    for name in PROCESSES | {"migrate"}:
        assert services[name]["environment"]["CITADEL_CACHE__TTL"] == "86400"
        assert services[name]["environment"]["OTEL_TRACES_SAMPLER_ARG"] == "0.1"
        assert services[name]["environment"]["CITADEL_LOG__LEVEL"] == "info"
    assert services["api"]["environment"]["CITADEL_API__RATE_PER_MINUTE"] == "600"


def test_an_override_of_the_guide_lets_every_process_trust_a_private_authority(tmp_path):
    services = with_override(tmp_path, "A private certificate authority")["services"]
    for name in PROCESSES | {"migrate"}:
        trusted = services[name]["environment"]["SSL_CERT_FILE"]
        assert services[name]["environment"]["PGSSLROOTCERT"] == trusted
        (mount,) = [volume for volume in services[name]["volumes"] if volume["target"] == trusted]
        assert (mount["source"], mount["read_only"]) == ("/etc/ssl/private-ca.pem", True)
    assert any(volume["source"] == "/etc/ssl/private-ca.pem" for volume in services["ollama"]["volumes"])


def test_the_guides_proxy_is_not_taken_to_the_stacks_own_servers(tmp_path):
    services = with_override(tmp_path, "A proxy for outgoing calls")["services"]
    for name in PROCESSES:
        environment = services[name]["environment"]
        assert environment["HTTPS_PROXY"] == "http://proxy.example:3128"
        for variable, value in environment.items():
            if variable.endswith(("URL", "URLS", "ENDPOINT")) and value.startswith("http"):
                assert proxy_of(value, environment) is None, variable
        assert proxy_of("https://llm.example/v1", environment) == "http://proxy.example:3128"


def test_an_override_of_the_guide_chooses_name_servers_and_names(tmp_path):
    services = with_override(tmp_path, "Other name servers")["services"]
    for name in PROCESSES | {"migrate", "ollama"}:
        assert services[name]["dns"] == ["10.0.0.53", "10.0.1.53"]
        assert services[name]["dns_search"] == ["corp.example"]
        assert sorted(services[name]["extra_hosts"], reverse=True) == [
            "llm.corp.example=10.0.0.7",
            "gpu1.corp.example=fd00:10::7",
        ]


def test_an_override_of_the_guide_gives_every_network_and_listener_ipv6(tmp_path):
    found = with_override(tmp_path, "IPv6")
    assert all(network["enable_ipv6"] for network in found["networks"].values())
    services = found["services"]
    assert {port["host_ip"] for port in services["api"]["ports"]} == {"127.0.0.1", "::1"}
    for name in PROCESSES:
        listening = {key: value for key, value in services[name]["environment"].items() if key.endswith("HOST")}
        assert set(listening.values()) == {"::"}, name


def test_a_line_in_dotenv_names_an_image_by_digest(tmp_path):
    digest = f"sha256:{'0123456789abcdef' * 4}"
    others = {name: image for name, image in images().items() if ":" in image}
    settings = "".join(f"{name}={image}@{digest}\n" for name, image in others.items())
    services = with_own_files(tmp_path, **{".env": f"COMPOSE_PROFILES=observability,proxy\n{settings}"})["services"]
    named = {service["image"] for service in services.values() if not service["image"].startswith("citadel-")}
    assert named == {f"{image}@{digest}" for image in others.values()}


def test_the_guides_settings_for_a_host_without_the_internet_pull_nothing(tmp_path):
    guide = (ROOT / "compose" / "README.md").read_text()
    (settings,) = [block for block in re.findall(r"```sh\n(.*?)```", guide, re.DOTALL) if "CITADEL_MODELS=" in block]
    services = with_own_files(tmp_path, **{".env": settings})["services"]
    assert not services["ollama-models"]["command"]
    assert services["api"]["environment"]["CITADEL_DEFAULT_MODEL"] == "all-minilm"
    assert services["api"]["environment"]["CITADEL_LLM__ENDPOINTS__ollama__MODEL"] == "llama3.2:3b"


def test_models_come_from_files_alone_where_nothing_is_to_be_pulled(tmp_path):
    job = read(CITADEL_MODELS="", CITADEL_MODEL_FILES=str(tmp_path))["services"]["ollama-models"]
    assert not job["command"]
    assert (str(tmp_path), "/models", True) in {
        (volume["source"], volume["target"], volume.get("read_only", False)) for volume in job["volumes"]
    }
