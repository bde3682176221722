"""What becomes of a question when the server, the network or the key is bad."""

import asyncio
import contextlib

import pytest

from citadel_common.deadline import Deadline
from citadel_common.errors import BadLlmOutput, DeadlineExceeded, LlmRefused, LlmUnavailable, PayloadTooLarge
from tests.doubles.process import LlmProcess
from tests.integration.llm.asking import ask, opened, question, soon
from tests.support.polling import eventually


@pytest.mark.parametrize("mode", ["error500", "html502", "busy503", "rate429", "dead", "disconnect", "stream_error"])
def test_errors_that_a_retry_may_help_are_retryable(server, way, mode):
    server.behaviour(mode)
    with pytest.raises(LlmUnavailable, match="LLM endpoint 'main'") as caught:
        ask(server.url, **way)
    assert caught.value.retryable
    assert server.stats()["requests"] == 1


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("bad400", "answered 400: max_tokens must be at least 1"),
        ("auth401", "answered 401: Incorrect API key provided"),
        ("forbidden403", "answered 403: this key may not use the model"),
        ("not_found404", "answered 404: model 'tiny-llm' not found"),
        ("unprocessable422", "answered 422: temperature: must be at most 2"),
    ],
)
def test_refusals_quote_the_servers_message(server, way, mode, words):
    server.behaviour(mode)
    with pytest.raises(LlmRefused, match=words) as caught:
        ask(server.url, **way)
    assert not caught.value.retryable


def test_an_unknown_model_is_refused(server, way):
    with pytest.raises(LlmRefused, match='model "none" not found'):
        ask(server.url, question(model="none"), **way)


def test_a_rate_limit_says_when_to_come_back(server, way):
    server.behaviour("rate429", retry_after_s=7)
    with pytest.raises(LlmUnavailable) as caught:
        ask(server.url, **way)
    assert caught.value.retry_after == 7


def test_a_used_up_quota_does_not_come_back(server):
    server.behaviour("quota429")
    with pytest.raises(LlmRefused, match="exceeded your current quota"):
        ask(server.url, style="openai")


def test_a_stream_that_ends_early_is_an_error(server, streamed):
    server.behaviour("truncated")
    with pytest.raises(LlmUnavailable, match="cut its answer off"):
        ask(server.url, **streamed)


def test_a_port_without_a_server_is_unavailable(way):
    with LlmProcess() as process:
        url = process.url
    with pytest.raises(LlmUnavailable, match="does not answer"):
        ask(url, **way)


def test_a_redirect_is_not_followed(server, way):
    server.behaviour("redirect307")
    with pytest.raises(LlmRefused, match="redirects are not followed"):
        ask(server.url, **way)
    assert server.stats()["requests"] == 1


@pytest.mark.parametrize("key", ["sk-very-secret", "right"])
def test_the_key_is_sent_and_never_quoted(way, key):
    with LlmProcess(api_key="right") as guarded:
        if key == "right":
            assert ask(guarded.url, api_key=key, **way).text
            guarded.behaviour("echo_key")
        with pytest.raises(LlmRefused) as caught:
            ask(guarded.url, api_key=key, **way)
        assert key not in str(caught.value)
        assert guarded.stats()["last_headers"]["authorization"] == f"Bearer {key}"


def test_the_environment_leads_nowhere_else(server, way, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert ask(server.url, **way).text


@pytest.mark.parametrize("mode", ["hang", "stall"])
def test_a_server_that_falls_silent_is_given_up(server, streamed, mode):
    server.behaviour(mode)
    with pytest.raises(LlmUnavailable, match=r"was silent for 0\.2 s"):
        ask(server.url, idle_timeout=0.2, **streamed)
    eventually(lambda: server.stats()["in_flight"] == 0)


@pytest.mark.parametrize("mode", ["hang", "stall", "slow"])
def test_a_call_ends_at_its_timeout(server, way, mode):
    server.behaviour(mode, delay_ms=60_000)
    with pytest.raises(LlmUnavailable, match=r"did not finish within 0\.3 s|was silent for"):
        ask(server.url, timeout=0.3, **way)
    eventually(lambda: server.stats()["in_flight"] == 0)


def test_a_call_ends_at_its_deadline(server, way):
    server.behaviour("hang")
    with pytest.raises(LlmUnavailable, match="did not finish within"):
        ask(server.url, deadline=Deadline.after(3), **way)
    eventually(lambda: server.stats()["in_flight"] == 0)


def test_an_endless_trickle_ends_at_the_timeout(server, streamed):
    server.behaviour("endless")
    with pytest.raises(LlmUnavailable, match="did not finish within"):
        ask(server.url, timeout=0.5, max_output_bytes=2**30, **streamed)
    eventually(lambda: server.stats()["in_flight"] == 0)


def test_an_endless_answer_is_cut_at_its_limit(server, streamed):
    server.behaviour("endless")
    with pytest.raises(BadLlmOutput, match="longer than 5000 bytes"):
        ask(server.url, max_output_bytes=5000, **streamed)
    eventually(lambda: server.stats()["in_flight"] == 0)


def test_a_long_answer_is_refused_whole_too(server, way):
    server.script("x" * 5001)
    with pytest.raises(BadLlmOutput, match="longer than 5000 bytes"):
        ask(server.url, max_output_bytes=5000, **way)


def test_a_line_without_end_is_cut(server, way):
    server.script("x" * 500_000)
    with pytest.raises(BadLlmOutput, match=r"more than \d+ bytes"):
        ask(server.url, max_output_bytes=1000, **way)


@pytest.mark.parametrize("mode", ["garbage_json"])
def test_answers_that_are_not_json_are_bad_output(server, way, mode):
    server.behaviour(mode)
    with pytest.raises(BadLlmOutput, match="not a JSON object"):
        ask(server.url, **way)


def test_no_time_left_asks_nobody(server):
    with pytest.raises(DeadlineExceeded):
        ask(server.url, deadline=Deadline.after(-1))
    assert server.stats()["requests"] == 0


def test_a_question_beyond_the_limit_is_not_sent(server):
    with pytest.raises(PayloadTooLarge, match="101 characters are more than the 100"):
        ask(server.url, question("x" * 101), max_prompt_chars=100)
    assert server.stats()["requests"] == 0


def test_cancelling_closes_the_connection(server, way):
    async def run():
        async with opened(server.url, **way) as clients:
            asked = asyncio.create_task(clients.ask("main", question("[[stall]]"), soon()))
            await asyncio.to_thread(eventually, lambda: server.stats()["in_flight"] == 1)
            asked.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asked
            await asyncio.to_thread(eventually, lambda: server.stats()["in_flight"] == 0)
            return await clients.ask("main", question("again"), soon())

    assert asyncio.run(run()).text
    assert server.stats()["abandoned"] == 1


@pytest.mark.parametrize("marker", ["hang", "stall"])
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_second_cancel_does_not_stop_the_first(server, way, marker, steps):
    """Two time limits that end together, the second while the connection is being closed."""

    async def run():
        async with opened(server.url, **way) as clients:
            asked = asyncio.create_task(clients.ask("main", question(f"[[{marker}]]"), soon()))
            await asyncio.to_thread(eventually, lambda: server.stats()["in_flight"] == 1)
            asked.cancel()
            for _ in range(steps):
                await asyncio.sleep(0)
            asked.cancel()
            await asyncio.gather(asked, return_exceptions=True)
            await asyncio.to_thread(eventually, lambda: server.stats()["in_flight"] == 0)

    asyncio.run(run())


def test_calls_at_once_are_bounded_and_all_are_answered(server, way):
    async def run():
        async with opened(server.url, max_concurrency=3, **way) as clients:
            server.behaviour("slow", delay_ms=20)
            return await asyncio.gather(*(clients.ask("main", question(f"q{n}"), soon()) for n in range(12)))

    assert len({answer.text for answer in asyncio.run(run())}) == 12
    stats = server.stats()
    assert (stats["requests"], stats["max_in_flight"]) == (12, 3)


def test_waiting_for_a_place_ends_at_the_deadline(server):
    async def run():
        async with opened(server.url, max_concurrency=1) as clients:
            first = asyncio.create_task(clients.ask("main", question("[[hang]]"), soon()))
            await asyncio.to_thread(eventually, lambda: server.stats()["in_flight"] == 1)
            with pytest.raises(LlmUnavailable, match="busy with 1 other calls"):
                await clients.ask("main", question("second"), Deadline.after(0.2))
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
            return await clients.ask("main", question("third"), soon())

    assert asyncio.run(run()).text
    assert "second" not in server.stats()["prompt_counts"]


def test_hundreds_of_hanging_calls_leave_no_trace(server):
    async def run():
        async with opened(server.url, max_concurrency=1000) as clients:
            asked = [asyncio.create_task(clients.ask("main", question("[[hang]]"), soon())) for _ in range(400)]
            await asyncio.to_thread(eventually, lambda: server.stats()["in_flight"] == 400)
            other = await clients.ask("main", question("and me?"), soon())
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
            return other

    assert asyncio.run(run()).text
    eventually(lambda: server.stats()["in_flight"] == 0)


def test_a_server_that_returns_is_asked_again(way):
    async def run(process):
        async with opened(process.url, **way) as clients:
            await clients.ask("main", question(), soon())
            process.kill()
            with pytest.raises(LlmUnavailable):
                await clients.ask("main", question(), soon())
            process.restart_same_port()
            return await clients.ask("main", question(), soon())

    with LlmProcess() as process:
        assert asyncio.run(run(process)).text
