"""Runs that would make something huge, thrown at one real worker: clear errors, flat memory, and others go on."""

from pathlib import Path

import psutil
import pytest

from citadel_common.errors import InvalidInput
from tests.support.bombs import BOMBS, NINE_MEGABYTES, giving, sub_run

MOST_MEMORY = 512 * 2**20
"""Bytes of memory of the worker at its peak; half of what the shipped stacks give it."""
SMALL = giving("${{ context.l.map(i, i * 2) }}").definition


@pytest.fixture(scope="module")
def fleet_of_two(platform):
    """One worker, which meets everything."""
    platform.worker = platform.orchestration()
    return platform


def peak_memory(pid):
    """Return the most bytes of memory that a process has had."""
    assert psutil.pid_exists(pid)
    [line] = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


def ignite(workers, bomb):
    """Begin a run; return its id, or the error that it is refused with."""
    try:
        return workers.begin(bomb.definition)
    except InvalidInput as refused:
        return refused


def outcome(workers, lit):
    """Wait for the end of what was ignited; return code and message of its error."""
    if isinstance(lit, InvalidInput):
        return lit.code, lit.message
    state = workers.db.ended(lit)
    error = workers.db.error(lit) or {"code": state, "message": state}
    return error["code"], error["message"]


def test_every_bomb_ends_in_a_clear_error_while_memory_stays_flat_and_others_go_on(workers):
    lit = {name: ignite(workers, bomb) for name, bomb in BOMBS.items()}
    others = [workers.begin(SMALL) for _ in range(5)]
    assert {workers.db.ended(run_id) for run_id in others} == {"succeeded"}
    ends = {name: outcome(workers, one) for name, one in lit.items()}
    assert {name: end for name, end in ends.items() if end[0] not in BOMBS[name].codes} == {}
    assert peak_memory(workers.worker.pid) < MOST_MEMORY
    assert workers.worker.events("step_crashed") == workers.worker.events("after_end_crashed") == []


def test_many_of_the_same_at_once_wait_for_memory_instead_of_failing(workers):
    large = "${{ context.l.filter(i, i < 150).map(i, context.big) }}"
    runs = [workers.begin(giving(large).definition) for _ in range(12)]
    assert {workers.db.ended(run_id) for run_id in runs} == {"succeeded"}
    assert peak_memory(workers.worker.pid) < MOST_MEMORY


def test_a_celery_result_leaves_out_what_is_too_large(workers):
    result = workers.execute({"steps": [sub_run("s", NINE_MEGABYTES)]})
    assert (result["success"], result["status"], result["steps_executed"]) == (True, "succeeded", 1), result["failure"]
    assert (result["final_context"], result["workflow_results"][0]["result"]) == ({}, None)
    assert "output" not in result
    assert "the limit (workflows.max_final_context_bytes) is 16,777,216" in result["left_out"]
