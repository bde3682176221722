"""Start of a candidate, wrong settings, and outages of its Redis."""

import os
import subprocess
import sys

import pytest

from citadel_maintenance.beat.settings import BUILT_IN
from tests.support.beat import ALONE, FAST, BeatProcess, Schedule, entry, messages, open_beats
from tests.support.fixtures import require_redis
from tests.support.polling import eventually
from tests.support.redis_server import RedisProcess
from tests.support.worker import ServiceProcess, variables

WRONG = {
    "unknown task": (entry("odd", task="warm_embeding_cache", every=60), "near names: warm_embedding_cache"),
    "wrong arguments": (entry("odd", every=60, args='{"text": []}'), "args do not fit warm_embedding_cache: text"),
    "bad crontab": (entry("odd", crontab="61 * * * *"), "is not a crontab"),
    "too short": (entry("odd", every="50ms"), "must be at least 0.1 s"),
}


@pytest.fixture
def own_redis():
    require_redis()
    with RedisProcess(durable=True) as server:
        yield server


@pytest.fixture
def beats(own_redis):
    with open_beats(own_redis, entry("quick", every="200ms"), STORES__TIMEOUT="1") as beats:
        yield beats


@pytest.mark.parametrize(("settings", "said"), WRONG.values(), ids=WRONG)
def test_a_wrong_entry_ends_the_process_and_is_named(settings, said):
    env = variables({"BROKER_URL": "redis://127.0.0.1:1/0"} | FAST | ALONE | settings)
    ended = subprocess.run(
        [sys.executable, "-m", "citadel_maintenance.beat"],
        env=env, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ended.returncode == 78
    [line] = ended.stderr.splitlines()
    assert line.startswith("citadel: wrong setting: CITADEL_BEAT")
    assert "odd" in line.lower()
    assert said in line


def test_the_built_in_schedule_is_introduced(own_redis):
    with ServiceProcess("citadel_maintenance.beat", {"BROKER_URL": own_redis.url}, wait=False) as beat:
        beat.wait_for("leader_gained")
        with own_redis.client() as store:
            known = eventually(lambda: Schedule(store).entries())
        assert {entry.name: entry.task for entry in known} == {name: of["task"] for name, of in BUILT_IN.items()}
        assert beat.terminate() == 0


def test_a_candidate_starts_without_its_redis_and_survives_an_outage(beats, own_redis):
    own_redis.kill()
    beat = beats.start()
    beat.wait_for("store_unavailable")
    own_redis.restart()
    beat.wait_for("store_answers_again")
    beats.wait_for_more(3)
    own_redis.kill()
    beat.wait_for("store_unavailable", times=2)
    own_redis.restart()
    beat.wait_for("store_answers_again", times=2)
    beats.wait_for_more(3)
    beats.stop()
    ids = [message.task_id for message in messages(beats.store)]
    assert len(ids) == len(set(ids))


def test_a_candidate_stops_even_if_its_redis_hangs(beats, own_redis):
    beat = beats.start(STORES__TIMEOUT="3600")
    beats.wait_for_more(3)
    with own_redis.frozen():
        assert beat.terminate() == 0


def test_the_health_file_is_touched(beats, own_redis, tmp_path):
    """The leader and the waiting candidate touch theirs, also when Redis is down."""
    files = [tmp_path / "health" / name for name in ("leading", "waiting")]
    leader = beats.start(BEAT__HEALTH_FILE=files[0])
    assert beats.leader() is leader
    other = beats.start(BEAT__HEALTH_FILE=files[1])
    assert_touched(files)
    assert beats.leader() is leader
    assert not other.events("leader_gained")
    own_redis.kill()
    leader.wait_for("store_unavailable")
    other.wait_for("store_unavailable")
    assert_touched(files)


def assert_touched(files):
    """Check that each file is touched again after its time was reset."""
    for file in files:
        eventually(file.exists)
        os.utime(file, (0, 0))
        eventually(lambda file=file: file.stat().st_mtime > 0)


def test_the_password_of_redis_is_not_logged():
    require_redis()
    with RedisProcess(password="geheim-123") as server, BeatProcess(server.url, entry("quick", every="200ms")) as beat:
        beat.wait_for("slot_published")
        assert beat.terminate() == 0
        assert "geheim" not in beat.output


def test_the_cache_may_have_a_password_that_a_candidate_does_not_know(own_redis):
    address = own_redis.url.rpartition("@")[2]
    with BeatProcess(own_redis.url, CACHE_URL=f"redis://:another@{address}") as beat, own_redis.client() as store:
        eventually(lambda: beat.leads(store))
