"""The worker with an Ollama server: bad texts, bad answers, outages."""

import time

import pytest

from tests.doubles.ollama.models import truncated
from tests.doubles.process import OllamaProcess
from tests.support.assertions import MODEL, assert_good_but, assert_vectors
from tests.support.celery_client import PlainClient, error_of
from tests.support.worker import WorkerProcess

TASK = "generate_embedding"


@pytest.fixture(scope="module", autouse=True)
def small_patience(redis_url, ollama):
    """A worker that soon retries a task when no backend answers."""
    ollama.reset()
    settings = {"EMBEDDINGS__PATIENCE": 1, "EMBEDDINGS__BACKENDS__main__TIMEOUT": 0.5, "WORKER__RETRY__MAX_RETRIES": 1}
    with WorkerProcess(redis_url, ollama.url, **settings) as process:
        yield process


@pytest.fixture(autouse=True)
def fresh(store, double):
    """Empty the cache."""
    store.delete(*(store.keys("citadel:embedding:*") or ["none"]))


def performed(store, monitor):
    """Yield the commands that Redis has performed until now."""
    store.echo("all is seen")
    while "all is seen" not in (entry := monitor.next_command())["command"]:
        yield entry


def seen_until_now(store, monitor):
    """Return the commands of scripts that Redis has performed, each with the number of its script's call."""
    found, call = [], 0
    for entry in performed(store, monitor):
        if entry["client_type"] == "lua":
            found.append((call, entry["command"]))
        else:
            call += 1
    return found


def scripts_with(seen, *parts):
    """Return the calls of scripts with a command that has all those parts, apart from announcements."""
    return {
        call for call, command in seen if all(part in command for part in parts) and not command.startswith("PUBLISH")
    }


class TestBadTexts:
    @pytest.mark.parametrize("marker", ["nan", "runner400", "zero", "infinite", "null", "wrong_dimension"])
    def test_a_bad_text_never_fails_its_neighbours(self, plain, marker):
        texts = [f"good {n}" for n in range(70)]
        for index in (0, 33, 69):
            texts[index] = f"bad {index} [[{marker}]]"
        assert_good_but(plain.call(TASK, texts), texts, bad=(0, 33, 69))

    @pytest.mark.parametrize("marker", ["error500", "dead"])
    def test_a_text_that_ends_the_server_fails_alone(self, plain, marker):
        texts = [f"good {n}" for n in range(20)] + [f"bad [[{marker}]]"]
        result = plain.call(TASK, texts)
        assert_good_but(result, texts, bad=(20,))
        assert result["errors"][0]["code"] == "text_rejected"
        assert "fails at this text, while it answers others" in result["errors"][0]["message"]

    def test_a_text_that_hangs_the_server_fails_alone(self, plain):
        texts = ["good", "bad [[hang]]", "good too", "and this"]
        task = plain.publish(TASK, [texts], headers={"citadel_deadline": time.time() + 15})
        assert_good_but(task.get(timeout=60), texts, bad=(1,))

    def test_a_bad_text_does_not_fail_other_requests(self, plain):
        bad = [plain.send(TASK, [f"bad {n} [[nan]]"]) for n in range(10)]
        good = [plain.send(TASK, [f"good {n}", f"also {n}"]) for n in range(30)]
        for n, task in enumerate(good):
            assert_vectors(task.get(timeout=60), [f"good {n}", f"also {n}"])
        assert all(error_of(task).startswith("TextRejected: text[0]: ") for task in bad)

    def test_bad_vectors_are_not_cached(self, plain, store):
        plain.call(TASK, ["good", "[[zero]]", "[[infinite]]", "[[wrong_dimension]]"])
        assert len(store.keys("citadel:embedding:*")) == 1

    def test_an_error_that_a_second_call_cures_is_not_reported(self, plain):
        texts = ["good", "once [[runner400_once]]"]
        assert_vectors(plain.call(TASK, texts), texts)

    def test_errors_name_the_text_and_the_reason(self, plain):
        [error] = plain.call(TASK, ["good", "[[nan]]"])["errors"]
        assert (error["index"], error["code"]) == (1, "text_rejected")
        assert "unsupported value: NaN" in error["message"]


class TestOverlongTexts:
    @pytest.mark.parametrize("model", ["nomic-embed-text", "mxbai-embed-large", "bge-m3", "all-minilm"])
    def test_overlong_texts_are_cut_and_reported(self, plain, model):
        limits = {"num_ctx": 8192, "num_batch": 8192} if model == "bge-m3" else {}
        long = "word " * 8000
        texts = ["short", long, "also short", "another " + long]
        cut = [truncated(model, text, limits) for text in texts]
        result = plain.call(TASK, texts, model=model)
        assert result["truncated"] == [1, 3]
        assert_vectors(result, cut, model)

    def test_a_text_over_a_smaller_num_ctx_is_cut_and_reported(self, plain):
        text = "x" * 1000
        result = plain.call(TASK, ["short", text], options={"num_ctx": 100})
        assert result["truncated"] == [1]
        assert_vectors(result, ["short", text[:400]])

    def test_a_cached_vector_keeps_the_report_of_truncation(self, plain):
        texts = ["short", "word " * 3000]
        plain.call(TASK, texts)
        result = plain.call(TASK, texts)
        assert (result["cache_hits"], result["truncated"]) == (2, [1])

    def test_a_caller_who_forbids_cutting_gets_an_error_even_where_a_cut_vector_is_cached(self, plain):
        texts = ["short", "word " * 3000]
        assert plain.call(TASK, texts, truncate=True)["truncated"] == [1]
        refused = plain.call(TASK, texts, truncate=False)
        assert [(error["index"], error["code"]) for error in refused["errors"]] == [(1, "text_too_long")]
        assert plain.call(TASK, texts)["truncated"] == [1]


class TestBadAnswers:
    @pytest.mark.parametrize("mode", ["garbage_json", "empty_answer", "missing", "extra", "disconnect", "html502"])
    def test_a_call_with_an_unusable_answer_is_repeated(self, plain, double, mode):
        double.behaviour(mode, for_requests=2)
        texts = [f"text {n}" for n in range(40)]
        assert_vectors(plain.call(TASK, texts), texts)

    @pytest.mark.parametrize("mode", ["zero", "infinite", "null", "wrong_dimension"])
    def test_bad_vectors_of_a_server_are_an_error_and_not_cached(self, plain, double, mode, store):
        double.behaviour(mode)
        error = plain.error(TASK, ["a", "b"])
        assert error.startswith(("BadVector: text[0]: the backend answered", "ServerFailed: the backend answered"))
        assert store.keys("citadel:embedding:*") == []

    def test_an_error_names_the_model_that_is_gone(self, plain, double):
        double.behaviour("not_found404")
        error = plain.error(TASK, "a")
        assert error.startswith(f"UnknownModel: model: '{MODEL}' is not on the backend")

    def test_a_refused_key_is_an_error_at_once(self, plain, double):
        double.behaviour("auth401")
        assert "answered 401: Incorrect API key provided" in plain.error(TASK, ["a", "b"])
        assert double.stats()["requests"] == 1
        double.behaviour("ok")
        assert_vectors(plain.call(TASK, "a"), ["a"])


class TestOutages:
    def test_calls_wait_while_the_server_loads_the_model(self, plain, double):
        double.behaviour("loading", delay_ms=300)
        tasks = [plain.send(TASK, [f"{n}", f"also {n}"]) for n in range(8)]
        for n, task in enumerate(tasks):
            assert_vectors(task.get(timeout=60), [f"{n}", f"also {n}"])

    @pytest.mark.parametrize("mode", ["error500", "dead", "busy503", "garbage_json", "rate429"])
    def test_a_flapping_server_costs_no_text(self, plain, double, mode):
        double.behaviour("flapping", period=2, flap_mode=mode)
        texts = [f"{mode} {n}" for n in range(200)]
        assert_vectors(plain.call(TASK, texts), texts)

    def test_a_hanging_call_is_given_up(self, plain, double):
        double.behaviour("hang", for_requests=1)
        assert_vectors(plain.call(TASK, "a"), ["a"])
        assert double.stats()["abandoned"] == 1

    def test_a_slow_backend_is_waited_for(self, plain, double):
        double.behaviour("slow", delay_ms=250)
        texts = [f"slow {n}" for n in range(400)]
        assert_vectors(plain.call(TASK, texts), texts)

    @pytest.mark.parametrize("mode", ["dead", "hang", "error500", "busy503"])
    def test_a_caller_with_a_deadline_gets_a_clear_error_in_time(self, plain, double, mode):
        double.behaviour(mode, routes="embed")
        task = plain.publish(TASK, [mode], headers={"citadel_deadline": time.time() + 0.7})
        assert error_of(task).startswith(("BackendUnavailable: ", "ServerFailed: ", "DeadlineExceeded: "))

    def test_an_expired_task_is_not_run(self, plain, double):
        task = plain.publish(TASK, ["a"], headers={"citadel_deadline": time.time() - 1})
        assert error_of(task).startswith("DeadlineExceeded: the task was still queued at its deadline")
        assert double.stats()["requests"] == 0

    def test_a_task_without_a_deadline_is_retried_until_it_succeeds(self, plain, double, small_patience):
        before = len(small_patience.events("task_retried"))
        double.behaviour("busy503")
        task = plain.send(TASK, "patient")
        small_patience.wait_for("task_retried", times=before + 1)
        double.behaviour("ok")
        assert_vectors(task.get(timeout=60), ["patient"])

    def test_retries_end_in_a_dead_letter_with_their_history(self, plain, double, dead_letters):
        double.behaviour("dead")
        task = plain.send(TASK, "given up", model=MODEL)
        error = error_of(task)
        dead_letter = dead_letters.get(task.id)
        assert (dead_letter.task, dead_letter.args, dead_letter.kwargs) == (TASK, ["given up"], {"model": MODEL})
        assert dead_letter.code == "backend_failed"
        assert dead_letter.error in error
        assert len(dead_letter.history) == 2
        assert {attempt["code"] for attempt in dead_letter.history} == {"backend_failed"}

    def test_a_dead_letter_and_its_failed_result_are_stored_in_one_moment(self, plain, double, store):
        """Whoever requeues the dead letter as soon as it is seen gets no late result of the old attempt."""
        double.behaviour("dead")
        with store.monitor() as monitor:
            task = plain.send(TASK, "given up at once", model=MODEL)
            error_of(task)
            double.behaviour("ok")
            plain.call(TASK, "the next one")
            seen = seen_until_now(store, monitor)
        assert len(scripts_with(seen, "HSET citadel:dead-letters ", task.id)) == 1
        assert scripts_with(seen, "HSET citadel:dead-letters ", task.id) == scripts_with(seen, "FAILURE", task.id)

    def test_a_task_is_marked_for_its_retry_before_the_retry_is_sent(self, plain, double, store):
        """Else an attempt that ends at once has its result replaced, and the task seems to be retried for ever."""
        double.behaviour("dead")
        with store.monitor() as monitor:
            task = plain.send(TASK, "retried at once", model=MODEL)
            error_of(task)
            double.behaviour("ok")
            plain.call(TASK, "the next one")
            seen = [entry["command"].replace("\\", "") for entry in performed(store, monitor)]
        seen = [command for command in seen if task.id in command]
        marked = next(n for n, command in enumerate(seen) if "RETRY" in command)
        sent = next(n for n, command in enumerate(seen) if "PUSH" in command and '"retries": 1' in command)
        assert marked < sent

    def test_bad_input_is_not_retried(self, plain, double, dead_letters):
        plain.error(TASK, "[[nan]] once")
        assert double.stats()["received_counts"][MODEL] == {"[[nan]] once": 3}
        assert dead_letters.count() == 0


def test_a_backend_that_requires_a_key_works_only_with_it(redis_server):
    url = redis_server.database(1)
    with OllamaProcess(api_key="secret") as guarded, PlainClient(url) as plain:
        with WorkerProcess(url, guarded.url):
            assert "BackendRefused: no backend lists its models" in plain.error(TASK, "a")
        with WorkerProcess(url, guarded.url, EMBEDDINGS__BACKENDS__main__API_KEY="secret"):
            assert_vectors(plain.call(TASK, "a"), ["a"])
