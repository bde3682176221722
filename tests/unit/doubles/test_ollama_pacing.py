"""Ollama's double: its record of requests, and its speed."""

import asyncio
import json

import pytest

from tests.doubles.ollama.pacing import Slot, Slots
from tests.support.double_client import MODEL, Client, gathered


@pytest.fixture
def double():
    return Client()


class TestStats:
    def test_texts_are_counted_as_received_and_as_embedded(self, double):
        double.embed(["a", "b"])
        double.embed(["a", "[[nan]]"])
        stats = double.stats()
        assert stats["received_counts"] == {MODEL: {"a": 2, "b": 1, "[[nan]]": 1}}
        assert stats["embedded_counts"] == {MODEL: {"a": 1, "b": 1}}
        assert (stats["max_text_count"], stats["max_embedded_count"]) == (2, 1)
        assert (stats["requests"], stats["texts_received"], stats["texts_embedded"]) == (2, 4, 2)
        assert (stats["batch_sizes"], stats["statuses"]) == ({"2": 2}, {"200": 1, "400": 1})

    def test_requests_are_recorded_without_their_texts(self, double):
        request = {"model": MODEL, "input": "a", "keep_alive": "5m", "options": {"num_thread": 2}}
        double.post("/api/embed", request, headers={"traceparent": "00-ab"})
        stats = double.stats()
        assert stats["last_headers"]["traceparent"] == "00-ab"
        asked = {name: value for name, value in request.items() if name != "input"}
        assert stats["recent"] == [{"path": "/api/embed", "texts": 1, **asked}]

    def test_texts_beyond_the_limit_are_only_counted_together(self):
        double = Client(track_texts=2)
        for text in "abcd":
            double.embed(text)
        assert double.stats()["distinct_texts"] == 2
        assert double.stats()["texts_untracked"] == 2
        assert "received_counts" not in double.get("/_double/stats?text_counts=0").json()


class Clock:
    """A clock whose sleeps end late; a caller that never leaves."""

    def __init__(self, overshoot):
        self.now = 0.0
        self.overshoot = overshoot

    def monotonic(self):
        return self.now

    async def sleep(self, seconds):
        if seconds > 0:
            self.now += seconds + self.overshoot


class TestPacing:
    @pytest.mark.parametrize("queued", [True, False])
    @pytest.mark.parametrize("overshoot", [0.003, -0.0005])
    def test_the_average_rate_is_exact(self, overshoot, queued):
        clock = Clock(overshoot)
        slot = Slot(clock.monotonic)

        async def run():
            for _ in range(100):
                await slot.occupy(clock, 0.0 if queued else clock.now, 0.131)

        asyncio.run(run())
        assert clock.now == pytest.approx(13.1, abs=0.004)

    def test_an_idle_slot_saves_no_time_up(self):
        clock = Clock(0.0)
        clock.now = 100.0
        asyncio.run(Slot(clock.monotonic).occupy(clock, clock.now, 0.5))
        assert clock.now == 100.5

    def test_requests_beyond_the_slots_wait(self):
        double = Client(slots=2, text_ms=5)
        assert gathered(double, 6) == [200] * 6
        stats = double.stats()
        assert (stats["max_running"], stats["max_in_flight"]) == (2, 6)

    def test_a_caller_that_leaves_the_queue_makes_room(self):
        double = Client(text_ms=5)
        sent = asyncio.run(abandoned_beside_a_hung_slot(double.app))
        assert sent == ["first", "third"]
        assert double.stats()["abandoned"] == 1

    def test_slots_are_passed_on_in_order(self):
        async def run():
            slots, order = Slots(1), []
            held = await slots.acquire(Patient())

            async def queue(name):
                slot = await slots.acquire(Patient())
                order.append(name)
                slots.release(slot)

            tasks = [asyncio.create_task(queue(name)) for name in range(3)]
            await asyncio.sleep(0)
            slots.release(held)
            await asyncio.gather(*tasks)
            return order

        assert asyncio.run(run()) == [0, 1, 2]


class Patient:
    async def until(self, future):
        await future


async def abandoned_beside_a_hung_slot(app):
    """Ask three times at once of one slot; the second client hangs up at once."""
    finished = []

    async def ask(name, leaves):
        body = json.dumps({"model": MODEL, "input": name}).encode()
        messages = [{"type": "http.request", "body": body}]

        async def receive():
            if messages:
                return messages.pop()
            if not leaves:
                await asyncio.Event().wait()
            return {"type": "http.disconnect"}

        async def send(message):
            if message["type"] == "http.response.body":
                finished.append(name)

        scope = {"type": "http", "method": "POST", "path": "/api/embed", "headers": []}
        await app(scope, receive, send)

    await asyncio.gather(ask("first", False), ask("second", True), ask("third", False))
    return finished
