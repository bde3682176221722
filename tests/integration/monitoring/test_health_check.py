"""Health checks of real servers that are up, stopped, silent, slow, or refuse the credentials."""

import asyncio

import pytest

from citadel_common.deadline import Deadline
from tests.doubles.process import QdrantProcess
from tests.integration.monitoring.watched import (
    DEADLINE,
    REDIS_KEY,
    QuerySwallowingRelay,
    active_threads,
    backend,
    closed_url,
    endpoint,
    open_files,
    parrot_port,
    problems,
    silent_port,
)
from tests.support.gateway import gateway
from tests.support.planted import POSTGRES_PASSWORD
from tests.support.polling import eventually

SERVICES = {"broker", "results", "cache", "postgres", "qdrant", "llm/main"}
HUNG = f"accepts connections and does not answer within {DEADLINE:.3g} s"


class TestHealthyServers:
    def test_every_service_is_up(self, watched):
        report = watched.check()
        ollama = f"embeddings/main/127.0.0.1:{watched.ollama.port}"
        assert report["services"].keys() == SERVICES | {ollama}
        assert problems(report) == {}
        assert (report["status"], report["overall_health"]) == ("ok", True)
        assert report["service_health"] == {"redis": True, "qdrant": True, "postgres": True}
        assert all(each["latency_ms"] > 0 for each in report["services"].values())
        assert [name for name, each in report["services"].items() if not each["required"]] == ["cache", "llm/main"]

    def test_the_report_contains_system_metrics(self, watched):
        report = watched.check()
        stats = report["system_metrics"]
        assert 0 < stats["memory_percent"] <= 100
        assert 0 < stats["disk_percent"] <= 100
        assert stats["memory_available_gb"] > 0
        assert report["server_ip"].count(".") == 3

    def test_an_embedded_qdrant_counts_as_up(self, watched):
        report = watched.check(qdrant={})
        assert report["services"]["qdrant"]["status"] == "embedded"
        assert (report["status"], report["service_health"]["qdrant"]) == ("ok", True)

    @pytest.mark.parametrize("style", ["openai", "ollama"])
    @pytest.mark.parametrize("ending", ["", "/", "/v1"])
    def test_a_base_url_may_end_in_a_slash_or_v1(self, watched, style, ending):
        report = watched.check(
            llm={"endpoints": {"main": endpoint(watched.llm.url + ending, style=style)}},
            embeddings={"backends": {"main": backend(watched.ollama.url + ending, kind=style)}},
        )
        assert problems(report) == {}

    @pytest.mark.parametrize(
        ("style", "mount", "query", "asked"),
        [
            ("openai", "/v1beta/openai", "", "/v1beta/openai/models"),
            ("openai", "/openai/deployments/x", "?api-version=2", "/openai/deployments/x/models?api-version=2"),
            ("ollama", "/team/ollama", "", "/team/ollama/api/version"),
        ],
    )
    def test_a_base_url_with_a_path_of_its_own_is_asked_as_given(self, watched, style, mount, query, asked):
        base = "/v1" * (style == "openai")
        with (
            gateway(watched.llm.url + base, mount=mount) as (llm, llm_calls),
            gateway(watched.ollama.url + base, mount=mount) as (backends, backend_calls),
        ):
            report = watched.check(
                llm={"endpoints": {"main": endpoint(llm + query, style=style)}},
                embeddings={"backends": {"main": backend(backends + query, kind=style)}},
            )
        assert (llm_calls.calls, backend_calls.calls) == ([f"GET {asked}"], [f"GET {asked}"])
        assert problems(report) == {}

    def test_a_local_model_is_not_checked_as_a_server(self, watched):
        report = watched.check(embeddings={"backends": {"here": {"kind": "local"}}})
        assert report["services"].keys() == SERVICES

    def test_a_server_without_a_list_of_models_is_up(self, watched):
        with QdrantProcess() as other:
            report = watched.check(embeddings={"backends": {"tei": backend(other.url, kind="openai")}})
        assert problems(report) == {}


def refusing(watched, name):
    """Return changes of settings after which the named service refuses the credentials."""
    wrong = {
        "broker": {"broker_url": watched.broker.url.replace(REDIS_KEY, "falsch"), "result_url": watched.broker.url},
        "broker without": {
            "broker_url": f"redis://127.0.0.1:{watched.broker.port}/0",
            "result_url": watched.broker.url,
        },
        "results": {"result_url": watched.broker.url.replace(REDIS_KEY, "falsch")},
        "cache": {"cache_url": watched.broker.url.replace(REDIS_KEY, "falsch")},
        "postgres": {"postgres_dsn": watched.postgres.dsn.replace(POSTGRES_PASSWORD, "falsch")},
        "qdrant": {"qdrant": {"url": watched.qdrant.url, "api_key": "falsch"}},
        "embeddings": {"embeddings": {"backends": {"main": backend(watched.ollama.url, api_key="falsch")}}},
        "llm": {"llm": {"endpoints": {"main": endpoint(watched.llm.url, api_key="falsch")}}},
    }
    return wrong[name]


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("broker", "down"),
        ("broker without", "down"),
        ("results", "down"),
        ("cache", "degraded"),
        ("postgres", "down"),
        ("qdrant", "down"),
        ("embeddings", "down"),
        ("llm", "degraded"),
    ],
)
def test_refused_credentials_are_reported_without_showing_them(watched, name, status):
    report = watched.check(**refusing(watched, name))
    [(service, said)] = problems(report).items()
    assert service.startswith(name.partition(" ")[0])
    assert "refuses the credentials" in said
    assert "falsch" not in str(report)
    assert (report["status"], report["overall_health"]) == (status, status != "down")
    assert report["services"][service]["latency_ms"] is None


@pytest.mark.parametrize("mode", ["auth401", "error500", "html502"])
def test_the_status_of_an_http_server_is_reported(watched, mode):
    watched.ollama.behaviour(mode, routes="all")
    [said] = problems(watched.check()).values()
    assert mode[-3:] in said
    assert ("refuses the credentials" in said) == (mode == "auth401")


def test_a_qdrant_that_is_not_ready_is_down(watched):
    watched.qdrant.behaviour("not_ready")
    report = watched.check()
    assert "answers /readyz with status 503" in problems(report)["qdrant"]
    assert report["service_health"]["qdrant"] is False


@pytest.mark.parametrize("double", ["ollama", "qdrant", "llm"])
def test_a_server_that_closes_the_connection_is_down(watched, double):
    getattr(watched, double).behaviour("dead")
    [said] = problems(watched.check()).values()
    assert "does not answer" in said


UNREACHABLE = {
    "broker": (lambda url: {"broker_url": url("redis"), "result_url": None}, {"broker", "results"}, "down"),
    "results": (lambda url: {"result_url": url("redis")}, {"results"}, "down"),
    "cache": (lambda url: {"cache_url": url("redis")}, {"cache"}, "degraded"),
    "postgres": (lambda url: {"postgres_dsn": f"{url('postgresql')}/x"}, {"postgres"}, "down"),
    "qdrant": (lambda url: {"qdrant": {"url": url("http")}}, {"qdrant"}, "down"),
    "embeddings": (lambda url: {"embeddings": {"backends": {"main": backend(url("http"))}}}, {"embeddings"}, "down"),
    "openai": (
        lambda url: {"embeddings": {"backends": {"main": backend(url("http"), kind="openai")}}},
        {"embeddings"},
        "down",
    ),
    "llm": (lambda url: {"llm": {"endpoints": {"main": endpoint(url("http"))}}}, {"llm"}, "degraded"),
}


def assert_down(report, names, status, words):
    found = problems(report)
    assert {name.partition("/")[0] for name in found} == names
    assert all(words in said for said in found.values())
    assert (report["status"], report["overall_health"]) == (status, status != "down")


@pytest.mark.parametrize("name", UNREACHABLE)
def test_a_server_that_does_not_listen_is_unreachable(watched, name):
    changes, names, status = UNREACHABLE[name]
    assert_down(watched.check(**changes(closed_url)), names, status, "is not reachable")


@pytest.mark.parametrize("name", UNREACHABLE)
def test_a_server_that_accepts_and_never_answers_is_down(watched, name):
    changes, names, status = UNREACHABLE[name]
    with silent_port() as port:
        report = watched.check(**changes(lambda scheme: f"{scheme}://127.0.0.1:{port}"))
    assert_down(report, names, status, HUNG)
    assert all(report["services"][service]["latency_ms"] is None for service in problems(report))


def test_a_postgres_that_hangs_after_connecting_is_down_and_gets_no_cancel_request(watched):
    with QuerySwallowingRelay(watched.postgres.port) as relay:
        port = relay.url.rpartition(":")[2]
        report = watched.check(postgres_dsn=watched.postgres.dsn.replace(str(watched.postgres.port), port))
        eventually(lambda: tasks_of(watched.loop) == 0)
        assert relay.connections == 2  # the query and the test connection; no request to cancel the query
    assert HUNG in problems(report)["postgres"]


class TestServersThatStop:
    def test_a_stopped_redis_is_down(self, watched):
        watched.cache.kill()
        report = watched.check()
        watched.cache.restart()
        assert list(problems(report)) == ["cache"]
        assert report["service_health"] == {"redis": False, "qdrant": True, "postgres": True}
        assert problems(watched.check()) == {}

    def test_a_frozen_redis_is_down(self, watched):
        with watched.broker.frozen():
            report = watched.check()
        assert_down(report, {"broker", "results"}, "down", HUNG)

    def test_a_stopped_postgres_is_down(self, watched):
        watched.postgres.stop()
        report = watched.check()
        watched.postgres.start()
        assert_down(report, {"postgres"}, "down", "is not reachable")
        assert report["service_health"]["postgres"] is False

    def test_a_frozen_postgres_is_down(self, watched):
        with watched.postgres.frozen():
            report = watched.check()
        assert_down(report, {"postgres"}, "down", HUNG)

    def test_a_missing_database_is_named(self, watched):
        report = watched.check(postgres_dsn=watched.postgres.dsn_of("nowhere"))
        assert 'refuses connections: database "nowhere" does not exist' in problems(report)["postgres"]


class TestUrlsOfABackend:
    def test_one_url_of_a_backend_is_enough(self, watched):
        urls = (closed_url(), watched.ollama.url)
        report = watched.check(embeddings={"backends": {"main": backend(*urls)}})
        [(name, said)] = problems(report).items()
        assert name == f"embeddings/main/{urls[0].removeprefix('http://')}"
        assert urls[0] in said
        assert report["status"] == "degraded"

    def test_each_backend_needs_a_url_that_answers(self, watched):
        backends = {"main": backend(watched.ollama.url), "other": backend(closed_url(), closed_url())}
        report = watched.check(embeddings={"backends": backends})
        assert len(problems(report)) == 2
        assert report["status"] == "down"


class TestSlow:
    def test_services_slower_than_the_limit_are_slow(self, watched):
        report = watched.check({"slow": 1e-6})
        assert {each["status"] for each in report["services"].values()} == {"slow"}
        assert (report["status"], report["overall_health"]) == ("degraded", True)
        assert all(report["service_health"].values())

    def test_a_slow_service_is_named(self, watched):
        watched.qdrant.behaviour("slow", delay_ms=1200)
        report = watched.check({"slow": 1.1, "check_deadline": 20})
        assert report["services"]["qdrant"]["status"] == "slow"
        assert report["services"]["qdrant"]["latency_ms"] > 1100
        assert "answers slowly" in problems(report)["qdrant"]
        assert report["status"] == "degraded"


class TestCleanUpAfterChecks:
    def test_cancelled_checks_leave_no_tasks_files_or_threads(self, watched):
        with silent_port() as port:
            url = f"127.0.0.1:{port}"
            silent = {
                "broker_url": f"redis://{url}/0",
                "postgres_dsn": f"postgresql://{url}/x",
                "qdrant": {"url": f"http://{url}"},
                "embeddings": {"backends": {"main": backend(f"http://{url}")}},
                "llm": {"endpoints": {"main": endpoint(f"http://{url}")}},
            }
            watched.check({"check_deadline": 0.3}, **silent)
            eventually(lambda: tasks_of(watched.loop) == 0)
            files, threads = open_files(), active_threads()
            for _ in range(5):
                report = watched.check({"check_deadline": 0.3}, **silent)
                assert len(problems(report)) == 6
            eventually(lambda: tasks_of(watched.loop) == 0)
            eventually(lambda: open_files() <= files)
            assert active_threads() <= threads

    def test_a_name_that_does_not_resolve_is_unreachable(self, watched):
        report = watched.check(broker_url="redis://nowhere.invalid/0", result_url=watched.broker.url)
        [(name, said)] = problems(report).items()
        assert name == "broker"
        assert "is not reachable" in said


def tasks_of(loop):
    async def others():
        return len(asyncio.all_tasks()) - 1

    return loop.call(others(), Deadline.after(DEADLINE))


def test_a_secret_that_a_server_repeats_is_hidden(watched):
    with parrot_port() as port:
        report = watched.check(cache_url=f"redis://:{REDIS_KEY}@127.0.0.1:{port}/0")
    assert "***" in problems(report)["cache"]
