"""Steps of type `llm_query` through real workers, whose server refuses, breaks off or talks nonsense."""

import json

import pytest

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
QUICK = {"retry": {"max_attempts": 3, "delay": "1ms", "max_delay": "2ms"}}
HOSTILE = "bad \x00 \x1b[2J key"


def ask(**parameters):
    return {"steps": [{"step_id": "a", "type": "llm_query", "parameters": {"query": "q", **parameters}} | QUICK]}


def ended(workers, definition):
    """State and error of a run, and the data of its events by type."""
    run_id = workers.begin(definition)
    state = workers.db.ended(run_id)
    events = workers.db.rows("SELECT type, data FROM events WHERE run_id = %s ORDER BY seq", run_id)
    return state, workers.db.error(run_id), [event for event in events if event[0].startswith("step_")]


def output_of(workers, definition):
    run_id = workers.begin(definition)
    assert workers.db.ended(run_id) == "succeeded", workers.db.error(run_id)
    return json.loads(workers.db.rows("SELECT output FROM runs WHERE run_id = %s", run_id)[0][0])


def requests(workers):
    return workers.doubles.llm.stats()["requests"]


def refusal(status, message="slow down", **headers):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return {"raw": {"status": status, "body": {"error": {"message": message}}, "headers": named}}


@pytest.mark.parametrize("status", [429, 503])
def test_the_delay_that_a_server_asks_for_is_kept(workers, status):
    workers.doubles.llm.script(refusal(status, retry_after="0.5"), refusal(status, retry_after_ms="400"))
    state, _, events = ended(workers, ask())
    assert state == "succeeded"
    first, second = [data["delay_s"] for type_, data in events if type_ == "step_retrying"]
    assert first >= 0.5
    assert second >= 0.4


@pytest.mark.parametrize("status", [400, 500])
def test_a_message_that_cannot_be_stored_is_shown_in_another_form(workers, status):
    workers.doubles.llm.script(*[refusal(status, HOSTILE)] * 3)
    state, error, _ = ended(workers, ask())
    assert state == "failed"
    assert error["code"] == ("llm_refused" if status == 400 else "llm_unavailable")
    assert "bad \\x00 \\x1b[2J key" in error["message"]
    assert requests(workers) == (1 if status == 400 else 3)


def test_text_that_cannot_be_stored_is_replaced_in_outputs(workers):
    body = r'{"model":"m\u0000","message":{"content":"a\u0000b\ud83d\ude00\ud83d"},"done":true}'
    workers.doubles.llm.script({"raw": {"body": body}})
    output = output_of(workers, ask())
    assert output["text"] == "a\ufffdb\U0001f600\ufffd"
    assert output["model"] == "m\ufffd"


def test_json_values_that_cannot_be_stored_are_replaced_in_outputs(workers):
    workers.doubles.llm.script('{"n": 1, "b\\u0000": "\\u0000"}')
    assert output_of(workers, ask(response_schema=SCHEMA))["json"] == {"n": 1, "b\ufffd": "\ufffd"}


@pytest.mark.parametrize(
    ("extra", "problem"),
    [
        ("1" + "0" * 30, "/x: is an integer beyond 64 bits"),
        ("1e999", "/x: is not a finite number"),
        ("NaN", "/x: is not a finite number"),
        (r'{"\ud800": 1}', "/x: has a name that holds half of a surrogate pair"),
        ("[" * 300 + "]" * 300, "is nested more than 200 levels deep"),
        ("[" * 5000 + "]" * 5000, "more than 200 levels"),
    ],
)
def test_json_values_that_cannot_be_kept_exactly_are_refused_with_their_place(workers, extra, problem):
    workers.doubles.llm.script(*[f'{{"n": 1, "x": {extra}}}'] * 9)
    state, error, _ = ended(workers, ask(response_schema=SCHEMA))
    assert (state, error["code"], error["retryable"]) == ("failed", "bad_llm_output", False)
    assert problem in error["message"]
    assert requests(workers) == 3


def test_answers_that_do_not_fit_are_not_asked_for_again_by_the_retries_of_the_step(workers):
    workers.doubles.llm.behaviour("bad_json")
    state, error, events = ended(workers, ask(response_schema=SCHEMA))
    assert (state, error["code"], error["calls"], error["retryable"]) == ("failed", "bad_llm_output", 3, False)
    assert "asked 3 times" in error["message"]
    assert [data["error"]["calls"] for type_, data in events if type_ == "step_failed"] == [3]
    assert requests(workers) == 3


def test_the_calls_of_all_attempts_are_counted_and_shown(workers):
    broken = {"mode": "disconnect"}
    workers.doubles.llm.script("no", broken, "no", broken, "no", '{"n": 7}')
    state, _, events = ended(workers, ask(response_schema=SCHEMA))
    assert state == "succeeded"
    retried = [data["error"]["calls"] for type_, data in events if type_ == "step_retrying"]
    assert retried == [2, 4]
    assert [data["calls"] for type_, data in events if type_ == "step_succeeded"] == [6]


def test_calls_are_bounded_over_all_attempts(workers):
    workers.doubles.llm.script("no", {"mode": "disconnect"}, *["no"] * 20)
    state, error, _ = ended(workers, ask(response_schema=SCHEMA, max_calls=4))
    assert (state, error["code"], error["calls"]) == ("failed", "bad_llm_output", 4)
    assert requests(workers) == 4


def test_the_calls_of_a_step_are_in_its_output(workers):
    workers.doubles.llm.script("no", '{"n": 7}')
    assert output_of(workers, ask(response_schema=SCHEMA))["calls"] == 2


def test_a_context_overflow_is_named_and_not_repeated(workers):
    message = "request (3015 tokens) exceeds the available context size (1024 tokens), try increasing it"
    body = {"error": {"code": 400, "message": message, "type": "exceed_context_size_error", "n_ctx": 1024}}
    workers.doubles.llm.script({"raw": {"status": 400, "body": body}})
    state, error, _ = ended(workers, ask())
    assert (state, error["code"]) == ("failed", "payload_too_large")
    assert message in error["message"]
    assert requests(workers) == 1
