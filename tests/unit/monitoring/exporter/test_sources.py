"""Sources: read in parallel, bounded in time, independent of each other."""

import threading

import pytest

from citadel_monitoring.exporter.metrics import WORKERS, Sample
from citadel_monitoring.exporter.sources import Source, read_all
from tests.support.polling import eventually

FOUND = Sample(WORKERS, ("embeddings",), 2)
LONG = 60.0


def values(samples):
    return {(sample.metric.name, sample.labels): sample.value for sample in samples}


def up(samples):
    return {labels[0]: value for (name, labels), value in values(samples).items() if name == "citadel_exporter_up"}


@pytest.fixture
def release():
    """Yield an event that is set at the end of the test, so that no thread outlives it."""
    event = threading.Event()
    yield event
    event.set()


def failing():
    raise RuntimeError("down")


def test_a_source_that_fails_is_reported_and_does_not_affect_others():
    sources = [Source("bad", failing, timeout=LONG), Source("good", lambda: [FOUND], timeout=LONG)]
    read_all(sources)
    for scrape in (1, 2):
        found = values(read_all(sources))
        assert found["citadel_queue_workers", ("embeddings",)] == 2
        assert found["citadel_exporter_up", ("bad",)] == 0
        assert found["citadel_exporter_up", ("good",)] == 1
        assert found["citadel_exporter_errors_total", ("bad",)] == scrape
        assert found["citadel_exporter_errors_total", ("good",)] == 0


def test_all_sources_are_read_at_the_same_time():
    """Each waits until the other reads too."""
    meeting = threading.Barrier(2, timeout=LONG)
    sources = [Source(name, lambda: [FOUND] if meeting.wait() >= 0 else [], timeout=LONG) for name in "ab"]
    assert up(read_all(sources)) == {"a": 1, "b": 1}


def test_a_source_that_hangs_is_given_up_and_not_read_twice(release):
    readings = []

    def hang():
        readings.append(1)
        release.wait()
        return [FOUND]

    source = Source("slow", hang, timeout=0.01)
    for _ in range(3):
        assert up(read_all([source])) == {"slow": 0}
    assert len(readings) == 1


def test_a_source_that_hung_is_read_again(release):
    source = Source("slow", lambda: [FOUND] if release.wait() else [], timeout=0.01)
    assert up(read_all([source])) == {"slow": 0}
    release.set()
    eventually(lambda: up(read_all([source])) == {"slow": 1})


def test_simultaneous_scrapes_share_a_reading(release):
    readings = []

    def read():
        readings.append(1)
        release.wait()
        return [FOUND]

    source = Source("shared", read, timeout=LONG)
    answers = [source.start(), source.start()]
    release.set()
    assert [up(answer()) for answer in answers] == [{"shared": 1}, {"shared": 1}]
    assert len(readings) == 1
