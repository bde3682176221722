"""What a task's run adds to the figures, and the time that its message carries."""

from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from citadel_common.delivery.worker_registry import WorkerIdentity
from citadel_common.errors import BackendRefused
from citadel_common.settings.common import CommonSettings
from citadel_common.tasks import base
from citadel_common.tasks.app import create_app
from citadel_common.tasks.runtime import TaskRuntime
from citadel_contracts import GENERATE_EMBEDDING

NOW = 1_000_000.0
NAME = GENERATE_EMBEDDING.name


@pytest.fixture
def app():
    """An app whose broker has another time than this host."""
    with create_app(CommonSettings()) as app:
        app.server_clock = SimpleNamespace(now=lambda: NOW)
        yield app


@pytest.fixture
def stats(app):
    """The figures of a worker that runs tasks of this app."""
    return TaskRuntime.create(app, CommonSettings(), WorkerIdentity.of_this_process("embeddings")).stats


def answer(payload, _):
    return {"text": payload.text}


def run(app, handler=answer, **request):
    task = app.tasks.get(NAME) or base.register(app, GENERATE_EMBEDDING, handler)
    task.push_request(id="x", args=["text"], kwargs={}, **request)
    try:
        return task.run("text")
    finally:
        task.pop_request()


def waited(stats):
    return stats.take().get((NAME, "wait", "sum"))


def test_a_wait_counts_from_the_sending(app, stats):
    run(app, sent_at=NOW - 3)
    assert waited(stats) == 3


def test_a_retry_waits_from_the_time_that_it_was_meant_for(app, stats):
    run(app, sent_at=NOW - 30, eta=datetime.fromtimestamp(NOW - 2, UTC).isoformat())
    assert waited(stats) == 2


def test_clocks_that_differ_make_no_negative_wait(app, stats):
    run(app, sent_at=NOW + 5)
    assert waited(stats) == 0


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"sent_at": NOW - 3, "delivery_info": {"redelivered": True}},
        {"sent_at": "soon"},
        {"sent_at": float("nan")},
        {"sent_at": True},
        {"sent_at": -1},
    ],
)
def test_redeliveries_and_unstamped_messages_count_no_wait(app, stats, monkeypatch, request_):
    monkeypatch.setattr(base, "count_delivery", lambda *_, **__: 1)
    run(app, **request_)
    assert waited(stats) is None


def test_strange_times_do_no_harm(app, stats):
    run(app, sent_at=10**400)
    assert waited(stats) == 0
    run(app, sent_at=NOW - 3, eta="tomorrow")
    assert waited(stats) == 3


def test_a_failure_has_its_code(app, stats):
    def refuse(*_):
        raise BackendRefused

    with pytest.raises(BackendRefused):
        run(app, refuse)
    found = stats.take()
    assert found[NAME, "ended", "failed"] == found[NAME, "failures", "backend_refused"] == 1
    assert (NAME, "ended", "dead_lettered") not in found


def test_every_message_carries_its_time_and_a_retry_its_own(app):
    sent = []
    producer = SimpleNamespace(publish=lambda _, **options: sent.append(options["headers"]))
    for headers in (None, {"sent_at": 1.0, "citadel_history": ["x"]}):
        message = app.amqp.create_task_message("x", NAME, ("text",), {})
        app.amqp.send_task_message(producer, NAME, message, queue="embeddings", headers=headers)
    assert [headers["sent_at"] for headers in sent] == [NOW, NOW]
    assert sent[1]["citadel_history"] == ["x"]
    assert list(sent[1])[-1] == "sent_at", "near the message's end, where the exporter looks"
