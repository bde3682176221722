"""Calls of the client: requests, answers, errors, retries."""

import httpx
import pytest

from citadel_client import (
    CallTimedOut,
    Citadel,
    CitadelApiError,
    InvalidRequest,
    NotAuthorized,
    NotFound,
    RateLimited,
    RetryPolicy,
    ServerUnreachable,
    ServiceUnavailable,
    UnexpectedReply,
)
from citadel_client.embedding import embed
from citadel_client.operations import Attempts
from citadel_client.options import CallOptions
from tests.unit.client.double import Double, openai_error, problem, vector_of

BUSY = {"retry-after": "0"}


def test_vectors_are_those_of_the_texts_whatever_their_order_in_the_answer(talk):
    found = talk(Double(), lambda client: client.embed(["hit one", "two"], model="m", input_type="query"))
    assert found.vectors == [vector_of("hit one"), vector_of("two")]
    assert found.array.tolist() == found.vectors
    assert (found.model, found.cache_hits, found.truncated, found.tokens, len(found)) == ("m", 1, (0,), 7, 2)


def test_a_request_asks_for_base64_and_has_only_given_options(talk):
    double = Double()
    talk(double, lambda client: client.embed("one", dimensions=3, options={"num_ctx": 8}), api_key="secret")
    assert double.bodies() == [
        {
            "input": ["one"],
            "encoding_format": "base64",
            "dimensions": 3,
            "options": {"num_ctx": 8},
            "cache_enabled": True,
        }
    ]
    assert double.requests[0].headers["authorization"] == "Bearer secret"


def test_key_and_url_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("CITADEL_API_URL", "http://elsewhere:99/")
    monkeypatch.setenv("CITADEL_API_KEY", "k")
    double = Double()
    with Citadel(transport=httpx.MockTransport(double.handle)) as citadel:
        citadel.queues()
        assert citadel.base_url == "http://elsewhere:99"
    assert double.requests[0].url == "http://elsewhere:99/v1/queues"
    assert double.requests[0].headers["authorization"] == "Bearer k"


@pytest.mark.parametrize("url", ["localhost:8080", "ftp://x", "http://", "http://me:geheim@", "http://a b"])
def test_an_invalid_url_is_refused_at_once_and_not_repeated(url):
    with pytest.raises(ValueError, match="the server's URL") as refused:
        Citadel(url)
    assert "geheim" not in str(refused.value)


def test_credentials_of_the_url_are_sent_and_not_shown():
    double = Double(httpx.Response(200, json={"queues": []}))
    with Citadel("https://me:p%40ss@Gateway/team/", transport=httpx.MockTransport(double.handle)) as citadel:
        citadel.queues()
        assert citadel.base_url == "https://gateway/team"
    assert double.requests[0].url == "https://gateway/team/v1/queues"
    assert double.requests[0].headers["authorization"] == "Basic bWU6cEBzcw=="


def test_a_key_and_credentials_of_the_url_exclude_each_other():
    with pytest.raises(ValueError, match="exclude each other"):
        Citadel("http://me:geheim@gateway", api_key="k")


def test_queues_workers_models_and_cache_are_read(talk):
    assert talk(Double(), lambda client: client.queues())[0].unacked == 2
    assert talk(Double(), lambda client: client.workers()) == []
    assert talk(Double(), lambda client: client.models())[0].identity == "m@1"
    assert talk(Double(), lambda client: client.cache()).hit_rate == 0.5


def test_health_of_a_server_that_is_down_is_a_result(talk):
    assert talk(Double(), lambda client: client.health()).status == "down"


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, NotAuthorized), (403, NotAuthorized), (404, NotFound), (422, InvalidRequest), (409, CitadelApiError)],
)
def test_problem_documents_become_errors(talk, status, kind):
    refusal = problem(status, "some_code", errors=[{"pointer": "/input/1", "detail": "too long"}])
    double = Double(refusal)
    with pytest.raises(kind) as caught:
        talk(double, lambda client: client.embed("one"))
    error = caught.value
    assert (error.status, error.code, error.message, error.trace_id) == (status, "some_code", "it is no good", "t1")
    assert error.errors[0].pointer == "/input/1"
    assert "/input/1: too long" in str(error)
    assert len(double.requests) == 1


def test_openai_errors_become_errors(talk):
    double = Double(openai_error(400, "dimensions: too many", "dimensions"))
    with pytest.raises(InvalidRequest, match="dimensions: too many") as caught:
        talk(double, lambda client: client.embed("one"))
    assert caught.value.trace_id == "t2"
    assert caught.value.errors[0].pointer == "/dimensions"


@pytest.mark.parametrize(
    "failure",
    [
        problem(429, "rate_limited", BUSY),
        problem(503, "overloaded", BUSY),
        problem(503, "overloaded"),
        httpx.Response(503, text="<html>proxy</html>"),
        httpx.ConnectError("refused"),
        httpx.RemoteProtocolError("gone"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_temporary_failures_are_retried(talk, failure):
    double = Double(failure, failure)
    assert len(talk(double, lambda client: client.embed("one"))) == 1
    assert len(double.requests) == 3


def test_retries_end_after_the_policys_attempts(talk):
    double = Double(*[problem(503, "overloaded", BUSY)] * 9)
    with pytest.raises(ServiceUnavailable):
        talk(double, lambda client: client.embed("one"))
    assert len(double.requests) == 4


def test_an_unreachable_server_has_an_error_of_its_own(talk):
    double = Double(*[httpx.ConnectError("refused")] * 9)
    with pytest.raises(ServerUnreachable, match="citadel dev"):
        talk(double, lambda client: client.cache())


def test_a_read_timeout_is_not_retried(talk):
    double = Double(httpx.ReadTimeout("slow"))
    with pytest.raises(CallTimedOut):
        talk(double, lambda client: client.embed("one"))
    assert len(double.requests) == 1


@pytest.mark.parametrize(
    "answer",
    [httpx.Response(200, text="hello"), httpx.Response(200, json={"x": 1}), httpx.Response(404, text="hello")],
)
def test_answers_of_other_servers_are_recognised(talk, answer):
    with pytest.raises(UnexpectedReply):
        talk(Double(answer), lambda client: client.embed("one"))


def test_missing_vectors_are_an_unexpected_reply(talk):
    answer = httpx.Response(200, json={"data": [], "model": "m", "usage": {"prompt_tokens": 0, "total_tokens": 0}})
    with pytest.raises(UnexpectedReply):
        talk(Double(answer), lambda client: client.embed("one"))


@pytest.mark.parametrize("texts", [[1], ["\ud800"]])
def test_invalid_arguments_are_not_sent(talk, texts):
    double = Double()
    with pytest.raises(InvalidRequest):
        talk(double, lambda client: client.embed(texts))
    assert not double.requests


def attempts(timeout=60.0):
    return Attempts(CallOptions(base_url="http://x", timeout=timeout))


def test_the_delay_that_the_server_asks_for_is_kept():
    tried, delays = attempts(), []
    for seconds in (7.0, 3.0, 7.0, 3.0, 7.0):
        tried.begin()
        delays.append(tried.delay_after(RateLimited(retry_after=seconds), repeatable=True))
    assert delays == [7.0, 3.0, 7.0, 3.0, 7.0]
    tried.begin()
    with pytest.raises(RateLimited):
        tried.delay_after(RateLimited(retry_after=7.0), repeatable=True)


def test_a_delay_beyond_the_callers_timeout_is_an_error_at_once():
    tried = attempts()
    assert tried.begin() <= 60.0
    with pytest.raises(RateLimited):
        tried.delay_after(RateLimited(retry_after=61.0), repeatable=True)


def test_retry_after_may_be_a_date(talk):
    past = problem(429, headers={"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"})
    double = Double(*[past] * 9)
    with pytest.raises(RateLimited) as refused:
        talk(double, lambda client: client.health())
    assert refused.value.retry_after == 0.0


def test_delays_of_the_policy_grow_and_are_capped():
    policy = RetryPolicy(attempts=99, base=1.0, cap=4.0)
    error = ServiceUnavailable()
    for made in range(1, 40):
        delay = policy.delay(made, error)
        assert delay is not None
        assert 0.0 <= delay <= min(4.0, 2.0 ** (made - 1))
    assert policy.delay(99, error) is None


def test_a_request_does_not_change_with_its_arguments():
    texts = ["one"]
    call = embed(texts)
    texts.append("two")
    assert call.content == b'{"input":["one"],"encoding_format":"base64","cache_enabled":true}'
