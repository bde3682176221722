"""`citadel batch` as one run on the server."""

import json

import httpx
import pytest

from citadel_client.cli import batch
from tests.unit.client.double import problem
from tests.unit.client.run_double import RunDouble, accepted, answer, result, run_view, streamed


@pytest.fixture
def double():
    return RunDouble()


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setattr(batch, "LARGE", 3)
    path = tmp_path / "in"
    path.write_text("one\ntwo\nthree\n")
    return path


def queues(workers):
    queue = {"name": "orchestration", "lanes": {}, "ready": 0, "unacked": 0, "workers": workers}
    return answer({"queues": [queue]})


def vectors(count):
    data = [{"index": n, "embedding": [1.0]} for n in range(count)]
    return answer({"data": data, "model": "m", "usage": {"prompt_tokens": 1, "total_tokens": 1}})


def records(out):
    return [json.loads(line) for line in out.splitlines()]


def test_a_large_file_is_sent_as_a_run(citadel, double, file):
    failed = result(1, embeddings=[], errors=[{"index": 0, "code": "text_rejected", "message": "no"}])
    double.script.extend([queues(1), accepted(), streamed(result(0) + failed + result(2, truncated=[0]))])
    code, out, err = citadel("batch", file, "--dimensions", 2, "--no-cache")
    assert code == 1
    assert "run r-1" in err
    assert records(out) == [
        {"request_id": 1, "embedding": [1.0, 2.0]},
        {"request_id": 2, "error": {"code": "text_rejected", "message": "no"}},
        {"request_id": 3, "embedding": [1.0, 2.0], "truncated": True},
    ]
    sent = [json.loads(line) for line in double.requests[1].content.splitlines()]
    assert sent[0] == {"text": "one", "request_id": 1, "dimensions": 2, "cache_enabled": False}


def test_a_large_file_is_sent_in_chunks_without_workers_for_runs(citadel, double, file):
    double.script.extend([queues(0), vectors(3)])
    assert citadel("batch", file)[0] == 0
    assert double.requests[1].url.path == "/v1/embeddings"


def test_a_file_that_the_server_refuses_as_a_run_is_sent_in_chunks(citadel, double, file):
    double.script.extend([queues(1), problem(413, "payload_too_large"), vectors(3)])
    code, out, err = citadel("batch", file)
    assert (code, len(records(out))) == (0, 3)
    assert "in chunks" in err


def test_a_small_file_is_sent_in_chunks_at_once(citadel, double, file):
    file.write_text("one\n")
    double.script.append(vectors(1))
    assert citadel("batch", file)[0] == 0


def test_resume_submits_the_requests_that_are_left(citadel, double, file, tmp_path):
    out = tmp_path / "out"
    out.write_text('{"request_id":1,"embedding":[9.0]}\n')
    double.script.extend([accepted(), streamed(result(0) + result(1))])
    code, summary, _ = citadel("batch", file, "-o", out, "--resume", "--wait", "--json")
    assert (code, json.loads(summary)["written"], json.loads(summary)["skipped"]) == (0, 2, 1)
    assert [record["request_id"] for record in records(out.read_text())] == [1, 2, 3]
    assert b"one" not in double.requests[0].content


def test_a_run_that_is_cancelled_meanwhile_is_an_error(citadel, double, file):
    double.script.extend([accepted(), streamed(result(0)), *(answer(run_view("cancelled")) for _ in range(2))])
    code, out, err = citadel("batch", file, "--wait")
    assert code == 1
    assert "run r-1 cancelled" in err
    assert len(records(out)) == 1


def test_an_interrupt_does_not_end_the_run(citadel, double, file):
    double.script.extend([accepted(), KeyboardInterrupt()])
    code, _, err = citadel("batch", file, "--wait")
    assert code == 130
    assert "the run goes on" in err


def test_async_prints_the_id_of_the_run(citadel, double, file):
    double.script.extend([accepted(), accepted()])
    assert citadel("batch", file, "--async")[:2] == (0, "r-1\n")
    assert json.loads(citadel("batch", file, "--async", "--json")[1]) == {"run_id": "r-1"}


@pytest.mark.parametrize("options", [("--async", "--wait"), ("--async", "-o", "x"), ("--resume",), ("--overwrite",)])
def test_options_that_contradict_each_other_are_a_usage_error(citadel, file, options):
    assert citadel("batch", file, *options)[:2] == (2, "")


def test_async_submits_nothing_if_a_request_is_unfit(citadel, double, file):
    file.write_text('{"text": "one"}\n{"text": 2, "request_id": "b"}\n')
    double.script.append(httpx.ConnectError("not asked"))
    code, _, err = citadel("batch", file, "--async")
    assert code == 2
    assert "'b': text must be a string; nothing was submitted" in err
