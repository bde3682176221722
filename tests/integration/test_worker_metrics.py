"""Metrics that an embeddings worker serves: sources of texts, breakers, its control group."""

import time
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from citadel_common.system import cgroup
from tests.support.child import free_port
from tests.support.polling import eventually
from tests.support.web import web
from tests.support.worker import WorkerProcess

TASK = "generate_embedding"


class Metered:
    """The worker's metrics."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/metrics"

    def rows(self, metric: str, label: str) -> dict[str, float]:
        """Return the values of a metric by a label; without labels the name is empty."""
        families = text_string_to_metric_families(web.get(self._url, timeout=30).text)
        samples = (sample for family in families for sample in family.samples if sample.name == metric)
        return {sample.labels.get(label, ""): sample.value for sample in samples}


@pytest.fixture(scope="module")
def metered(redis_url, ollama) -> Iterator[Metered]:
    """A worker that serves its metrics."""
    port = free_port()
    with WorkerProcess(redis_url, ollama.url, TELEMETRY__METRICS_PORT=port):
        yield Metered(port)


def sources(metered: Metered) -> dict[str, float]:
    return metered.rows("citadel_texts_total", "source")


@pytest.mark.usefixtures("double")
def test_the_sources_of_the_texts_of_a_request_add_up(plain, metered):
    before = sources(metered)
    name = time.monotonic()
    plain.call(TASK, [f"once {name}", f"twice {name}", f"twice {name}"])
    plain.call(TASK, [f"once {name}"])
    now = sources(metered)
    gained = {source: value - before.get(source, 0) for source, value in now.items()}
    assert {source: value for source, value in gained.items() if value} == {"backend": 2, "shared": 1, "cache": 1}


def test_a_breaker_can_be_followed_from_open_to_closed(plain, metered, double):
    assert metered.rows("citadel_breakers_open", "backend") == {"main": 0}
    double.kill()
    waiting = plain.send(TASK, [f"patient {time.monotonic()}"])
    eventually(lambda: metered.rows("citadel_breakers_open", "backend") == {"main": 1})
    eventually(lambda: metered.rows("citadel_breaker_changes_total", "state").get("half_open"))
    double.restart_same_port()
    waiting.get(timeout=60)
    changes = metered.rows("citadel_breaker_changes_total", "state")
    assert metered.rows("citadel_breakers_open", "backend") == {"main": 0}
    assert changes["closed"] == 1
    assert changes["open"] == changes["half_open"]


@pytest.mark.skipif(cgroup.read() is None, reason="no control group is to be seen")
def test_the_limits_of_the_control_group_are_served(metered):
    for name in ("cpu_limit_cores", "memory_limit_bytes"):
        assert metered.rows(f"citadel_cgroup_{name}", "").keys() == {""}
