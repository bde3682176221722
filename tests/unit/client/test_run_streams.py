"""Streams of runs: each event and result once and in order, over any number of connections."""

import httpx
import pytest

from citadel_client import CallTimedOut, NotFound, ServerUnreachable, ServiceUnavailable, UnexpectedReply
from tests.unit.client.double import problem
from tests.unit.client.run_double import END, RunDouble, dropped, event, result, streamed


def events(client, **options):
    return client.runs.handle("r-1").events(**options)


def results(client):
    return client.runs.handle("r-1").results()


def seqs(found):
    return [item.seq for item in found]


@pytest.mark.parametrize("size", [1, 5, 10_000])
def test_events_come_in_order_however_the_bytes_are_cut(talk, size):
    body = event(1, "run_submitted") + ": alive\n\n" + event(2, step_id="å", data={"x": [1]}) + event(3) + END
    found = talk(RunDouble(streamed(body, size=size)), events)
    assert [(item.seq, item.type, item.step_id) for item in found] == [
        (1, "run_submitted", None),
        (2, "step_succeeded", "å"),
        (3, "step_succeeded", None),
    ]


def test_lines_may_end_with_carriage_returns(talk):
    body = (event(1) + END).replace("\n", "\r\n")
    assert seqs(talk(RunDouble(streamed(body, size=3)), events)) == [1]


def test_after_a_drop_the_stream_continues_after_the_last_whole_event(talk):
    torn = event(3)[:-10]
    double = RunDouble(dropped(event(1) + event(2) + torn), dropped(event(3)), streamed(event(4) + END))
    assert seqs(talk(double, events)) == [1, 2, 3, 4]
    assert double.headers("last-event-id") == [None, "2", "3"]


def test_an_end_without_the_end_event_is_a_drop(talk):
    double = RunDouble(streamed(event(1)), streamed(event(2) + END))
    assert seqs(talk(double, events)) == [1, 2]


def test_repeated_events_are_skipped(talk):
    double = RunDouble(dropped(event(1) + event(2)), streamed(event(1) + event(2) + event(3) + END))
    assert seqs(talk(double, events)) == [1, 2, 3]


def test_events_begin_after_the_given_number(talk):
    double = RunDouble(streamed(event(8) + END))
    assert seqs(talk(double, lambda client: events(client, after=7))) == [8]
    assert double.headers("last-event-id") == ["7"]


def test_a_stream_reconnects_while_the_server_is_unavailable(talk):
    failure = 'event: error\ndata: {"code": "store_unavailable", "message": "no record"}\n\n'
    refusal = problem(503, "store_unavailable", headers={"retry-after": "0"})
    double = RunDouble(streamed(event(1) + failure), refusal, httpx.ConnectError("no"), streamed(event(2) + END))
    assert seqs(talk(double, events)) == [1, 2]
    assert double.headers("last-event-id") == [None, "1", "1", "1"]


def test_progress_resets_the_number_of_attempts(talk):
    """Four attempts in a row are allowed, so twenty drops with an event before each do not end the stream."""
    double = RunDouble(*(dropped(event(seq)) for seq in range(1, 21)), streamed(END))
    assert seqs(talk(double, events)) == list(range(1, 21))


def test_silence_of_an_open_connection_is_not_a_failure(talk):
    silent = [streamed("", breaks=httpx.ReadTimeout("silent")) for _ in range(20)]
    assert seqs(talk(RunDouble(*silent, streamed(event(1) + END)), events)) == [1]


def busy():
    return problem(503, "store_unavailable", headers={"retry-after": "0"})


@pytest.mark.parametrize(
    ("answers", "kind", "asked"),
    [
        (lambda: httpx.ConnectError("no"), ServerUnreachable, 4),
        (busy, ServiceUnavailable, 4),
        (lambda: streamed(": alive\n\n"), ServerUnreachable, 4),
        (lambda: problem(404, "not_found"), NotFound, 1),
        (lambda: streamed("data: no event\n\n"), UnexpectedReply, 1),
    ],
)
def test_a_stream_that_cannot_go_on_raises_the_cause(talk, answers, kind, asked):
    double = RunDouble(*(answers() for _ in range(9)))
    with pytest.raises(kind):
        talk(double, events)
    assert len(double.requests) == asked


def test_the_timeout_is_for_the_whole_stream(talk):
    double = RunDouble(*[dropped(event(seq)) for seq in range(1, 9)])
    with pytest.raises(CallTimedOut, match="the run goes on"):
        talk(double, lambda client: events(client, timeout=0.0))


@pytest.mark.parametrize("size", [1, 10_000])
def test_results_come_once_and_in_order_over_a_drop(talk, size):
    first = dropped(result(0) + result(1) + result(2)[:20], size=size)
    again = streamed("".join(map(result, range(4))), size=size)
    found = talk(RunDouble(first, again), results)
    assert [(item.index, item.request_id) for item in found] == [(index, f"r{index}") for index in range(4)]
    assert found[0].embeddings.vectors == [[1.0, 2.0]]


def test_results_go_on_after_the_last_that_came(talk):
    """The server is asked for the rest only."""
    double = RunDouble(dropped(result(0) + result(1) + result(2)[:20]), streamed(result(2) + result(3)))
    found = talk(double, results)
    assert [item.index for item in found] == [0, 1, 2, 3]
    assert [request.url.params.get("after") for request in double.requests] == [None, "2"]


def test_results_begin_after_the_given_number(talk):
    double = RunDouble(streamed(result(5) + result(6)))
    found = talk(double, lambda client: client.runs.handle("r-1").results(after=5))
    assert [item.index for item in found] == [5, 6]
    assert double.requests[0].url.params["after"] == "5"


def test_a_failed_request_has_its_error(talk):
    error = {"index": 0, "code": "text_rejected", "message": "a bad text"}
    bad = result(0, embeddings=[], errors=[error])
    (found,) = talk(RunDouble(streamed(bad.rstrip())), results)
    assert found.failed
    assert found.embeddings.partial == [None]
    assert found.embeddings.errors[0]["message"] == "a bad text"
