"""Outages of outside servers: calls wait them out in place, and do not knock all at once."""

import asyncio
from dataclasses import dataclass, field

import pytest
from structlog.testing import capture_logs

from citadel_common.deadline import Deadline
from citadel_common.errors import NotFound, VectorStoreUnavailable
from citadel_common.outages import RELEASES_PER_SECOND, Outage, Outages
from citadel_common.tasks.failure_policy import HandBack
from citadel_common.telemetry.prometheus import PrometheusMetrics
from tests.support.virtual_time import CLOCK, run_virtually

PATIENCE = 60.0


@dataclass
class FakeServer:
    """A server that is away until a time; a call takes some seconds."""

    away_for: float
    takes: float = 0.01
    knocks: list[float] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    served: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.back_at = CLOCK.now + self.away_for

    async def answer(self) -> str:
        """Refuse the connection, or answer."""
        if CLOCK.now < self.back_at:
            self.knocks.append(CLOCK.now)
            await asyncio.sleep(0.001)
            raise Outage(VectorStoreUnavailable(f"refused at {self.knocks[-1]}"))
        self.served.set()
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(self.takes)
        self.at_once -= 1
        return "answer"


def guarded(patience=PATIENCE, metrics=None):
    outages = Outages(*([metrics] if metrics else []))
    return outages, outages.server("store", patience=patience)


@pytest.mark.parametrize("away_for", [0.05, 6.0, 50.0])
def test_a_call_waits_until_its_server_is_back(away_for):
    async def story():
        server, (_, guard) = FakeServer(away_for), guarded()
        assert await guard.call(server.answer) == "answer"
        return CLOCK.now - server.back_at

    assert run_virtually(story()) < 5.0


def test_a_call_that_is_out_of_patience_raises_its_own_error():
    async def story():
        server, (_, guard) = FakeServer(1000.0), guarded()
        began = CLOCK.now
        with pytest.raises(VectorStoreUnavailable, match=r"^refused at") as caught:
            await guard.call(server.answer)
        assert caught.value.message == f"refused at {server.knocks[-1]}"
        return CLOCK.now - began

    assert run_virtually(story()) == pytest.approx(PATIENCE, abs=0.02)


def test_a_call_gives_up_shortly_before_its_deadline():
    async def story():
        server, (_, guard) = FakeServer(1000.0), guarded()
        deadline = Deadline.after(3.0)
        with pytest.raises(VectorStoreUnavailable):
            await guard.call(server.answer, deadline)
        return deadline.remaining

    assert 0 < run_virtually(story()) <= 0.1


def test_without_patience_an_outage_fails_the_call_at_once():
    async def story():
        server, (_, guard) = FakeServer(1000.0), guarded(patience=0.0)
        for _ in range(5):
            with pytest.raises(VectorStoreUnavailable):
                await guard.call(server.answer)
        return len(server.knocks)

    assert run_virtually(story()) == 3


def test_a_caller_who_comes_late_in_an_outage_has_patience_of_its_own():
    async def story():
        server, (_, guard) = FakeServer(80.0), guarded()
        early = asyncio.create_task(guard.call(server.answer))
        await asyncio.sleep(50)
        late = asyncio.create_task(guard.call(server.answer))
        return await asyncio.gather(early, late, return_exceptions=True)

    early, late = run_virtually(story())
    assert isinstance(early, VectorStoreUnavailable)
    assert late == "answer"


def test_of_a_thousand_calls_one_at_a_time_knocks():
    async def story():
        server, (_, guard) = FakeServer(20.0), guarded()
        first_round = asyncio.gather(*(guard.call(server.answer) for _ in range(1000)))
        await asyncio.sleep(0.3)
        begun = len(server.knocks)
        second_round = asyncio.gather(*(guard.call(server.answer) for _ in range(1000)))
        assert set(await first_round + await second_round) == {"answer"}
        return begun, len(server.knocks) - begun

    begun, after = run_virtually(story())
    assert begun == 1000
    assert after <= 8


def test_waiting_calls_go_on_gradually_once_the_server_is_back():
    async def story():
        server, (_, guard) = FakeServer(6.0, takes=0.1), guarded()
        answers = await asyncio.gather(*(guard.call(server.answer) for _ in range(1000)))
        return answers, server.most_at_once

    answers, most = run_virtually(story())
    assert answers == ["answer"] * 1000
    assert most < RELEASES_PER_SECOND / 2


def test_a_second_outage_during_the_release_is_waited_out_too():
    async def story():
        server, (_, guard) = FakeServer(6.0), guarded()
        calls = asyncio.gather(*(guard.call(server.answer) for _ in range(1000)))
        await server.served.wait()
        knocks, server.back_at = len(server.knocks), CLOCK.now + 6.0
        return await calls, len(server.knocks) - knocks

    answers, knocks = run_virtually(story())
    assert answers == ["answer"] * 1000
    assert knocks < 20


def test_a_cancelled_probe_makes_room_for_another():
    async def story():
        server, (_, guard) = FakeServer(1.0), guarded()
        hanging = asyncio.Event()

        async def hang():
            await server.answer()
            hanging.set()
            await asyncio.sleep(1000)

        probe = asyncio.create_task(guard.call(hang))
        await hanging.wait()
        other = asyncio.create_task(guard.call(server.answer))
        await asyncio.sleep(1)
        probe.cancel()
        return await other

    assert run_virtually(story()) == "answer"


def test_a_long_answer_that_has_begun_lets_the_others_go_on():
    async def story():
        server, (_, guard) = FakeServer(6.0), guarded()

        async def stream():
            await server.answer()
            guard.answers()
            await asyncio.sleep(1000)
            return "streamed"

        calls = [asyncio.create_task(guard.call(stream)) for _ in range(50)]
        await asyncio.sleep(15)
        begun = CLOCK.now
        assert await asyncio.gather(*calls) == ["streamed"] * 50
        return CLOCK.now - begun

    assert run_virtually(story()) < 1000


def test_an_error_of_the_call_itself_is_raised_and_proves_that_the_server_is_there():
    async def story():
        server, (_, guard) = FakeServer(6.0), guarded()

        async def refuse():
            await server.answer()
            raise NotFound("no such collection")

        found = await asyncio.gather(*(guard.call(refuse) for _ in range(50)), return_exceptions=True)
        return {type(error) for error in found}

    assert run_virtually(story()) == {NotFound}


def test_stopping_hands_waiting_calls_back_at_once():
    async def story():
        server, (outages, guard) = FakeServer(1000.0), guarded()
        calls = [asyncio.create_task(guard.call(server.answer)) for _ in range(10)]
        await asyncio.sleep(5)
        began = CLOCK.now
        outages.stop()
        late = asyncio.create_task(guard.call(server.answer))
        ends = await asyncio.gather(*calls, late, return_exceptions=True)
        return {type(end) for end in ends}, CLOCK.now - began

    assert run_virtually(story()) == ({HandBack}, 0.0)


def test_a_stopping_process_still_makes_calls_that_its_server_answers():
    async def story():
        server, (outages, guard) = FakeServer(0.0), guarded()
        outages.stop()
        return await guard.call(server.answer)

    assert run_virtually(story()) == "answer"


def test_an_outage_is_logged_at_its_begin_and_at_its_end():
    async def story():
        server, (_, guard) = FakeServer(20.0), guarded()
        with capture_logs() as lines:
            await asyncio.gather(*(guard.call(server.answer) for _ in range(100)))
        return [(line["event"], line["server"]) for line in lines]

    assert run_virtually(story()) == [("outage_began", "store"), ("outage_ended", "store")]


def test_waiting_calls_are_counted():
    metrics = PrometheusMetrics()

    async def story():
        server, (_, guard) = FakeServer(20.0), guarded(metrics=metrics)
        calls = asyncio.gather(*(guard.call(server.answer) for _ in range(10)))
        await asyncio.sleep(10)
        during = page(metrics)
        await calls
        return during, page(metrics)

    during, after = run_virtually(story())
    assert 'citadel_calls_held{server="store"} 10.0' in during
    assert 'citadel_breakers_open{backend="store"} 1.0' in during
    assert 'citadel_calls_held{server="store"} 0.0' in after
    assert 'citadel_breakers_open{backend="store"} 0.0' in after
    assert 'citadel_call_holds_total{outcome="resumed",server="store"}' in after


def page(metrics):
    return metrics.render("text/plain")[0].decode()
