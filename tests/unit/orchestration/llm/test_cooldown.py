"""An endpoint that asked to be left alone is not called by anybody."""

import asyncio

import pytest

from citadel_common.deadline import Deadline
from citadel_common.errors import LlmRefused, LlmUnavailable
from citadel_orchestration.llm.cooldown import LONGEST, Cooldown
from tests.unit.orchestration.llm.answering import endpoint, question, response

OK = '{"choices": [{"message": {"content": "ok"}, "finish_reason": "stop"}]}'


def test_it_lasts_as_long_as_it_was_asked_for_but_no_absurd_time():
    now = [100.0]
    cooldown = Cooldown("it", clock=lambda: now[0])
    cooldown.begin(30)
    cooldown.begin(10)
    assert cooldown.remaining == 30
    now[0] += 31
    assert cooldown.remaining == 0
    cooldown.begin(1e9)
    assert cooldown.remaining == LONGEST


def test_who_cannot_wait_so_long_fails_at_once_without_a_call():
    calls = []

    def handler(_):
        calls.append(1)
        return response("{}", 429, {"retry-after": "60"})

    async def run():
        asked = endpoint(handler)
        for _ in range(5):
            with pytest.raises(LlmUnavailable) as caught:
                await asked.ask(question(), Deadline.after(30), lambda: None)
        return caught.value

    error = asyncio.run(run())
    assert len(calls) == 1
    assert "asked to be left alone" in error.message
    assert 50 < error.retry_after <= 60


def test_who_can_wait_is_answered_after_it():
    calls = []

    def handler(_):
        calls.append(asyncio.get_running_loop().time())
        return response("{}", 503, {"retry-after-ms": "200"}) if len(calls) == 1 else response(OK)

    async def run():
        asked = endpoint(handler)
        with pytest.raises(LlmUnavailable):
            await asked.ask(question(), Deadline.after(30), lambda: None)
        return await asyncio.gather(*(asked.ask(question(), Deadline.after(30), lambda: None) for _ in range(20)))

    assert [answer.text for answer in asyncio.run(run())] == ["ok"] * 20
    assert calls[1] - calls[0] >= 0.2


def test_every_call_is_counted_by_its_outcome():
    counted = []

    class Counting:
        def count(self, metric, amount=1, **labels):
            counted.append((metric.name, amount, labels))

        def set(self, *_, **__):
            """Do nothing."""

    usage = '"usage": {"prompt_tokens": 3, "completion_tokens": 4}'
    answers = [response("no", 400), response(OK[:-1] + f", {usage}}}")]

    async def run():
        asked = endpoint(lambda _: answers.pop(0))
        asked._metrics = Counting()
        with pytest.raises(LlmRefused):
            await asked.ask(question(), Deadline.after(30), lambda: None)
        await asked.ask(question(), Deadline.after(30), lambda: None)

    asyncio.run(run())
    assert [(name, labels.get("outcome", labels.get("kind")), amount) for name, amount, labels in counted] == [
        ("citadel_llm_calls_total", "llm_refused", 1),
        ("citadel_llm_calls_total", "ok", 1),
        ("citadel_llm_tokens_total", "input", 3),
        ("citadel_llm_tokens_total", "output", 4),
    ]
