"""The schedule as a setting: built-in entries, changes by variables, refused values."""

import os

import pytest

from citadel_common.settings.common import EX_CONFIG, load
from citadel_contracts import Lane
from citadel_maintenance.beat.settings import BUILT_IN, BeatSettings

ENTRY = {"BEAT__SCHEDULE__own__TASK": "warm_embedding_cache", "BEAT__SCHEDULE__own__ARGS": '{"texts": ["a"]}'}


@pytest.fixture
def env(monkeypatch):
    """Return a function that sets CITADEL_ variables; the machine's own are hidden."""
    for name in [name for name in os.environ if name.startswith("CITADEL_")]:
        monkeypatch.delenv(name)

    def set_all(**values):
        for name, value in values.items():
            monkeypatch.setenv(f"CITADEL_{name}", str(value))

    return set_all


def entries():
    return {entry.name: entry for entry in load(BeatSettings).beat.entries()}


def refusal(capsys):
    with pytest.raises(SystemExit) as ended:
        load(BeatSettings)
    assert ended.value.code == EX_CONFIG
    [line] = capsys.readouterr().err.splitlines()
    return line.removeprefix("citadel: wrong setting: ")


def test_the_built_in_schedule_is_the_default(env):
    found = entries()
    assert found.keys() == BUILT_IN.keys()
    seed = {name: (found[name].spec.name, str(found[name].slots)) for name in ("health", "cache", "metrics")}
    assert seed == {
        "health": ("system_health_check", "every 5m"),
        "cache": ("cleanup_expired_cache", "every 1h"),
        "metrics": ("collect_system_metrics", "every 1m"),
    }


def test_a_variable_changes_one_field_of_one_entry(env):
    env(BEAT__SCHEDULE__HEALTH__EVERY="60")
    found = entries()
    assert found.keys() == BUILT_IN.keys()
    assert (found["health"].spec.name, str(found["health"].slots)) == ("system_health_check", "every 1m")
    assert str(found["metrics"].slots) == "every 1m"


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("purge_runs__EVERY", "90s", "every 90s"),
        ("health__CRONTAB", "*/7 * * * *", "crontab */7 * * * *"),
        ("advise_vacuum__CRONTAB", "0 4 * * sun", "crontab 0 4 * * sun"),
        ("health__EVERY", "0.25h", "every 15m"),
        ("health__EVERY", "1d", "every 1d"),
    ],
)
def test_a_given_time_replaces_a_built_in_time_of_either_kind(env, name, value, says):
    env(**{f"BEAT__SCHEDULE__{name}": value})
    assert str(entries()[name.partition("__")[0]].slots) == says


def test_json_and_variables_are_merged(env):
    env(
        BEAT__SCHEDULE='{"metrics": {"every": 30}, "own": {"task": "warm_embedding_cache", "crontab": "5 * * * *"}}',
        BEAT__SCHEDULE__own__ARGS='{"texts": ["a"], "models": ["bge-m3"]}',
        BEAT__SCHEDULE__own__LANE="interactive",
    )
    found = entries()
    assert found.keys() == BUILT_IN.keys() | {"own"}
    assert str(found["metrics"].slots) == "every 30s"
    assert found["own"].kwargs == {"texts": ["a"], "models": ["bge-m3"]}
    assert found["own"].lane is Lane.INTERACTIVE


def test_an_entry_can_be_switched_off(env):
    env(BEAT__SCHEDULE__CACHE__ENABLED="false")
    assert entries().keys() == BUILT_IN.keys() - {"cache"}


def test_the_default_lane_is_the_one_of_the_task(env):
    env(**ENTRY, BEAT__SCHEDULE__own__EVERY="1m")
    assert entries()["own"].lane is Lane.BATCH


@pytest.mark.parametrize(
    ("change", "named", "said"),
    [
        ({"own__TASK": "sytem_health_chek"}, "OWN", "near names: system_health_check"),
        ({"own__TASK": "zzzz"}, "OWN", "known tasks: "),
        ({"own__ARGS": '{"texts": "a"}'}, "OWN", "args do not fit warm_embedding_cache: texts"),
        ({"own__ARGS": '{"text": []}'}, "OWN", "texts: is required"),
        ({"own__ARGS": "nonsense"}, "OWN__ARGS", ""),
        ({"own__EVERY": "soon"}, "OWN__EVERY", "must be a duration"),
        ({"own__EVERY": "0"}, "OWN__EVERY", "must be a duration"),
        ({"own__EVERY": "-5"}, "OWN__EVERY", "must be a duration"),
        ({"own__CRONTAB": "0 25 * * *"}, "OWN__CRONTAB", "is not a crontab"),
        ({"own__CRONTAB": "0 0 31 2 *"}, "OWN__CRONTAB", "is not a crontab"),
        ({"own__CRONTAB": "0 * * * *", "own__EVERY": "5m"}, "OWN", "exactly one of every and crontab"),
        ({"own__EVERY": "200ms"}, "", "schedule.own.every: must be at least 1 s"),
        ({"own__MISSED": "all"}, "OWN__MISSED", ""),
        ({"own__LANE": "fast"}, "OWN__LANE", ""),
        ({"own__EVRY": "5m"}, "OWN__EVRY", ""),
        ({"new__EVERY": "5m"}, "NEW__TASK", "required"),
        ({"own thing__TASK": "warm_embedding_cache"}, "OWN THING", ""),
    ],
)
def test_a_wrong_entry_is_refused_and_named(env, capsys, change, named, said):
    timed = {} if {"own__EVERY", "own__CRONTAB"} & change.keys() else {"BEAT__SCHEDULE__own__EVERY": "1m"}
    env(**ENTRY | timed | {f"BEAT__SCHEDULE__{name}": value for name, value in change.items()})
    line = refusal(capsys)
    assert line.startswith(f"CITADEL_BEAT__SCHEDULE__{named}" if named else "CITADEL_BEAT")
    assert said in line


def test_a_schedule_that_is_not_an_object_is_refused(env, capsys):
    env(BEAT__SCHEDULE="[1]")
    assert refusal(capsys).startswith("CITADEL_BEAT__SCHEDULE: ")
