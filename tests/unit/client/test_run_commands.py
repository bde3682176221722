"""`citadel workflow`, `runs` and `collections`: output, exit codes, interruptions."""

import json

import httpx
import pytest

from tests.unit.client.double import problem
from tests.unit.client.run_double import (
    END,
    RunDouble,
    accepted,
    answer,
    event,
    failed_view,
    result,
    run_view,
    streamed,
)

PROBLEMS = [{"pointer": "/steps/0/type", "detail": "there is no step type `x`", "code": "unknown_type"}]
STEPS = [{"step_id": "a", "type": "wait", "status": "pending", "attempt": 0}]


@pytest.fixture
def double():
    return RunDouble()


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "w.yaml"
    path.write_text("context: {}\nsteps:\n  - step_id: a\n    type: x\n")
    return path


def events_of_a_run(kind="run_succeeded", *more):
    events = [event(1, "run_submitted"), event(2, "step_started", step_id="a", data={"attempt": 1}), *more]
    return streamed("".join(events) + event(9, kind) + END)


def a_run(double, *, view=None, stream=None):
    """What the server answers while a run is followed to its end."""
    end = view or run_view(output={"n": 1})
    double.script.extend(
        [answer(run_view("running", steps=STEPS)), stream or events_of_a_run(), answer(end), answer(end)]
    )


def test_a_run_prints_its_steps_and_its_output(citadel, double, file):
    double.script.append(accepted())
    a_run(double)
    code, out, err = citadel("workflow", "run", file, "--set", "n=1", "--set", "t=x y", "--key", "k")
    assert (code, json.loads(out)) == (0, {"n": 1})
    assert "a: started" in err
    assert "run r-1 succeeded" in err
    assert double.bodies()[0]["context"] == {"n": 1, "t": "x y"}
    assert double.bodies()[0]["idempotency_key"] == "k"


def test_a_run_that_fails_is_exit_code_1(citadel, double, file):
    double.script.append(accepted())
    a_run(double, view=failed_view(), stream=events_of_a_run("run_failed"))
    code, out, err = citadel("workflow", "run", file, "--json")
    assert code == 1
    assert json.loads(out)["status"] == "failed"
    assert "docs: nothing there" in err


def test_no_wait_prints_the_id(citadel, double, file):
    double.script.extend([accepted(), accepted()])
    assert citadel("workflow", "run", file, "--no-wait")[:2] == (0, "r-1\n")
    assert json.loads(citadel("workflow", "run", file, "--no-wait", "--json")[1]) == {"run_id": "r-1"}


@pytest.mark.parametrize("command", ["run", "plan", "graph"])
def test_problems_are_printed_with_their_lines(citadel, double, file, command):
    double.script.append(problem(422, "invalid_definition", errors=PROBLEMS))
    code, out, err = citadel("workflow", command, file)
    assert (code, out) == (2, "")
    assert f"{file}:4: /steps/0/type: there is no step type `x`" in err


def test_validate_prints_every_problem(citadel, double, file):
    refused = (problem(422, "invalid_definition", errors=PROBLEMS) for _ in range(2))
    double.script.extend(refused)
    code, out, _ = citadel("workflow", "validate", file)
    assert (code, out) == (2, f"{file}:4: /steps/0/type: there is no step type `x`\n")
    code, out, _ = citadel("workflow", "validate", file, "--json")
    assert code == 2
    assert json.loads(out) == {"valid": False, "problems": [PROBLEMS[0] | {"line": 4}], "warnings": []}


def test_plan_and_graph_print_the_plan(citadel, double, file):
    step = {"step_id": "a", "type": "embedding", "calls": {"searches": 0, "embedding_texts": None}, "per_item": True}
    limited = {"step_id": "b", "type": "embedding", "start_timeout": 86400, "timeout": 1.5}
    plan = {"order": [["a"], ["b"]], "graph": "flowchart TD\n", "steps": [step, limited], "warnings": ["perhaps"]}
    double.script.extend(answer(plan) for _ in range(3))
    code, out, err = citadel("workflow", "plan", file)
    assert code == 0
    assert "embedding texts: ?" in out
    assert "for each of ? items" in out
    assert "start: 86400 s" in out
    assert "timeout: 1.5 s" in out
    assert "warning: perhaps" in err
    shown = json.loads(citadel("workflow", "plan", file, "--json")[1])
    assert [(each["start_timeout"], each["timeout"]) for each in shown["steps"]] == [(None, None), (86400, 1.5)]
    assert citadel("workflow", "graph", file)[:2] == (0, "flowchart TD\n")


@pytest.mark.parametrize(
    ("arguments", "script", "code"),
    [
        (("workflow", "run", "/does/not/exist"), [], 2),
        (("runs", "list", "--status", "nonsense"), [], 2),
        (("runs", "list", "--label", "nonsense"), [], 2),
        (("runs", "signal", "r-1", "go", "{bad"), [], 2),
        (("runs", "show", "r-2"), [problem(404, "not_found")], 1),
        (("runs", "cancel", "r-1"), [problem(409, "conflict")], 1),
        (("runs", "cancel", "r-1"), [httpx.ConnectError("no")] * 3, 3),
        (("collections", "search", "docs"), [], 2),
        (("collections", "search", "docs", "x", "--filter", "[1]"), [], 2),
        (("collections", "search", "docs", "--embedding", '["x"]'), [], 2),
        (("runs", "results", "r-1", "--json"), [], 2),
    ],
)
def test_exit_codes(citadel, double, arguments, script, code):
    double.script.extend(script)
    found, out, err = citadel(*arguments)
    assert (found, out) == (code, "")
    assert "Traceback" not in err


def test_an_interrupt_does_not_end_the_run(citadel, double, file):
    double.script.extend([accepted(), answer(run_view("running", steps=STEPS)), KeyboardInterrupt()])
    code, out, err = citadel("workflow", "run", file)
    assert (code, out) == (130, "")
    assert "the run goes on: `citadel runs watch r-1`" in err
    assert [request.url.path for request in double.requests] == [
        "/v1/workflows",
        "/v1/runs/r-1",
        "/v1/runs/r-1/events",
    ]


def test_progress_of_many_items_is_ten_lines(citadel, double):
    started = event(3, "step_expanded", step_id="a", data={"items": 100})
    items = [event(4 + n, "step_failed" if n == 7 else "step_succeeded", step_id="a", item=n) for n in range(100)]
    body = event(1, "run_submitted") + started + "".join(items) + event(200, "run_succeeded") + END
    a_run(double, stream=streamed(body, size=5000))
    code, _, err = citadel("runs", "watch", "r-1")
    assert code == 0
    lines = [line for line in err.splitlines() if "items" in line]
    assert len(lines) == 10
    assert lines[-1] == "a: 100/100, 1 failed items"


def test_list_and_show_print_runs(citadel, double):
    page = {"runs": [run_view("failed", error={"code": "x", "message": "broke"})], "next_cursor": None}
    double.script.extend([answer(page), answer(page), answer(run_view(steps=STEPS)), answer(run_view(steps=STEPS))])
    code, out, _ = citadel("runs", "list", "--status", "failed", "--label", "team:a")
    assert code == 0
    assert "broke" in out
    assert json.loads(citadel("runs", "list", "--json")[1])[0]["run_id"] == "r-1"
    assert "wait" in citadel("runs", "show", "r-1")[1]
    assert json.loads(citadel("runs", "show", "r-1", "--json")[1])["steps"][0]["step_id"] == "a"
    queries = [dict(request.url.params) for request in double.requests]
    assert queries[0] == {"status": "failed", "limit": "20", "label": "team:a"}
    assert queries[2:] == [{"outputs": "false"}, {}]


def test_show_says_for_which_key_a_run_waits(citadel, double):
    line = {"concurrency_key": "tenant", "limit": 1, "position": 4, "since": "2026-01-01T00:00:00Z"}
    double.script.append(answer(run_view("queued", steps=STEPS, waiting_for=line)))
    assert "waits for other runs of the concurrency key tenant: place 4 in line" in citadel("runs", "show", "r-1")[1]


def test_events_prints_past_events_or_follows_them(citadel, double):
    history = [{"seq": 1, "at": "2026-01-01T00:00:00Z", "type": "step_started", "step_id": "a", "item": 3}]
    double.script.extend([answer(history), answer([]), events_of_a_run()])
    assert "step_started  a[3]" in citadel("runs", "events", "r-1")[1]
    code, out, _ = citadel("runs", "events", "r-1", "--follow", "--json")
    assert code == 0
    assert [json.loads(line)["seq"] for line in out.splitlines()] == [1, 2, 9]


def test_results_prints_ndjson(citadel, double, tmp_path):
    bad = result(1, embeddings=[], errors=[{"index": 0, "code": "text_rejected", "message": "a bad text"}])
    double.script.extend([streamed(result(0)), streamed(result(0) + bad)])
    code, out, _ = citadel("runs", "results", "r-1")
    assert (code, json.loads(out)) == (0, {"index": 0, "request_id": "r0", "model": "m", "embeddings": [[1.0, 2.0]]})
    file = tmp_path / "out"
    code, out, _ = citadel("runs", "results", "r-1", "-o", file, "--json")
    assert (code, json.loads(out)) == (1, {"run_id": "r-1", "written": 2, "failed": 1})
    assert json.loads(file.read_text().splitlines()[1])["errors"][0]["message"] == "a bad text"
    assert citadel("runs", "results", "r-1", "-o", file)[0] == 2


def test_store_takes_lines_and_ndjson(citadel, double, tmp_path):
    texts, points = tmp_path / "texts", tmp_path / "points"
    texts.write_text("one\n\ntwo\n")
    points.write_text('{"id": 1, "text": "one"}\n{"id": 2, "embedding": [1, 2]}\n')
    double.script.extend(answer({"upserted": 2, "ids": [1, 2]}) for _ in range(2))
    code, out, _ = citadel("collections", "store", "docs", texts, "--json")
    assert (code, json.loads(out)) == (0, {"collection": "docs", "upserted": 2})
    assert citadel("collections", "store", "docs", points)[0] == 0
    assert [body["points"] for body in double.bodies()] == [
        [{"text": "one"}, {"text": "two"}],
        [{"id": 1, "text": "one"}, {"id": 2, "embedding": [1, 2]}],
    ]
    points.write_text('{"id": 1, "text": "one"}\nnonsense\n')
    code, _, err = citadel("collections", "store", "docs", points)
    assert code == 2
    assert "line 2 is not JSON" in err


def test_search_prints_hits(citadel, double):
    double.script.extend(answer({"hits": [{"id": "a", "score": 0.5, "payload": {"n": 1}}]}) for _ in range(2))
    assert '{"n":1}' in citadel("collections", "search", "docs", "x", "-n", 1)[1]
    out = citadel("collections", "search", "docs", "--embedding", "[1, 0.5]", "--filter", '{"n": 1}', "--json")[1]
    assert json.loads(out)["hits"][0]["id"] == "a"
    assert double.bodies()[1] == {"embedding": [1.0, 0.5], "limit": 10, "filter": {"n": 1}}


def at(milliseconds, seq, kind, **more):
    return {"seq": seq, "at": f"2026-01-01T00:00:{milliseconds / 1000:06.3f}Z", "type": kind, **more}


def traced(double):
    """A run of 1 s: a step that is tried twice, and the items of another."""
    events = [
        at(0, 1, "run_submitted"),
        at(100, 2, "step_started", step_id="a", data={"attempt": 1}),
        at(300, 3, "step_retrying", step_id="a"),
        at(400, 4, "step_started", step_id="a", data={"attempt": 3}),
        at(600, 5, "step_succeeded", step_id="a"),
        at(600, 6, "step_started", step_id="b", item=0, data={"attempt": 1}),
        at(1000, 7, "run_cancelled"),
    ]
    view = run_view("cancelled", finished_at="2026-01-01T00:00:01Z")
    double.script.extend([answer(view), answer(events), answer([])])


def test_a_waterfall_has_a_bar_per_attempt_from_the_records_times(citadel, double):
    traced(double)
    code, out, _ = citadel("runs", "show", "r-1", "--trace", "--json")
    assert code == 0
    assert [(bar["step_id"], bar["item"], bar["attempt"], bar["outcome"]) for bar in json.loads(out)] == [
        ("a", None, 1, "retried"),
        ("a", None, 3, "succeeded"),
        ("b", 0, 1, "cancelled"),
    ]
    assert [(bar["start_ms"], bar["duration_ms"]) for bar in json.loads(out)] == [
        (100.0, 200.0),
        (400.0, 200.0),
        (600.0, 400.0),
    ]


def test_a_waterfall_is_drawn_to_one_scale(citadel, double):
    traced(double)
    code, out, _ = citadel("runs", "show", "r-1", "--trace")
    assert code == 0
    first, again, item = (next(line for line in out.splitlines() if name in line) for name in (" a ", "a #3", "b[0]"))
    assert first.index("█") < again.index("█") < item.index("█")
    assert abs(item.count("█") - 2 * first.count("█")) <= 1
    assert "200.0 ms" in first
