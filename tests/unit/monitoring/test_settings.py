"""Settings of the monitoring worker, on a host that also has the settings of the others."""

import os

import pytest

from citadel_common.settings.common import EX_CONFIG, load
from citadel_monitoring.health.dependencies import dependencies
from citadel_monitoring.settings import MonitoringSettings


@pytest.fixture
def env(monkeypatch):
    """Return a function that sets CITADEL_ variables; the machine's own are hidden."""
    for name in [name for name in os.environ if name.startswith("CITADEL_")]:
        monkeypatch.delenv(name)

    def set_all(**values):
        for name, value in values.items():
            monkeypatch.setenv(f"CITADEL_{name}", str(value))

    return set_all


def test_the_worker_has_four_threads_unless_a_setting_says_otherwise(env):
    assert load(MonitoringSettings).worker.concurrency == 4
    env(WORKER__HEARTBEAT_INTERVAL="1")
    assert load(MonitoringSettings).worker.concurrency == 4
    env(WORKER__CONCURRENCY="7")
    assert load(MonitoringSettings).worker.concurrency == 7


def test_settings_of_other_services_are_ignored(env):
    env(EMBEDDINGS__LINGER="0.5", EMBEDDINGS__PROFILES__mine__DIMENSIONS="8", API__PORT="1", WORKFLOWS__LEASE="3")
    env(EMBEDDINGS__BACKENDS__gpu__KIND="ollama", EMBEDDINGS__BACKENDS__gpu__URLS="http://a,http://b")
    assert load(MonitoringSettings).embeddings.backends["gpu"].urls == ["http://a", "http://b"]


@pytest.mark.parametrize("name", ["MONITORING__CHECK_DEADLIN", "EMBEDDINGS__BACKENDS__gpu__URL"])
def test_a_misspelt_setting_is_named(env, capsys, name):
    env(EMBEDDINGS__BACKENDS__gpu__KIND="ollama", EMBEDDINGS__BACKENDS__gpu__URLS="http://a", **{name: "3"})
    with pytest.raises(SystemExit) as ended:
        load(MonitoringSettings)
    assert ended.value.code == EX_CONFIG
    assert name.upper() in capsys.readouterr().err


def test_every_configured_server_is_checked(env):
    env(
        EMBEDDINGS__BACKENDS__gpu__KIND="ollama", EMBEDDINGS__BACKENDS__gpu__URLS="http://a:1,http://u:geheim@b:2",
        EMBEDDINGS__BACKENDS__cloud__KIND="openai", EMBEDDINGS__BACKENDS__cloud__URLS="https://host/v1",
        EMBEDDINGS__BACKENDS__here__KIND="local",
        LLM__ENDPOINTS__main__URL="http://c:3", LLM__ENDPOINTS__main__MODEL="m",
        QDRANT__URL="http://q:6333", CACHE_URL="redis://cache/0",
    )  # fmt: skip
    found = {each.name: (each.required, each.group) for each in dependencies(load(MonitoringSettings))}
    assert found == {
        "broker": (True, "broker"),
        "results": (True, "results"),
        "cache": (False, "cache"),
        "postgres": (True, "postgres"),
        "qdrant": (True, "qdrant"),
        "embeddings/gpu/a:1": (True, "embeddings/gpu"),
        "embeddings/gpu/b:2": (True, "embeddings/gpu"),
        "embeddings/cloud/host/v1": (True, "embeddings/cloud"),
        "llm/main": (False, "llm/main"),
    }
