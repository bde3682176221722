"""A backlog that stands for long, while workers die: no message is sent again, and each task ends."""

import pytest

from tests.support.accepting import Accepting
from tests.support.assertions import assert_vectors

pytestmark = pytest.mark.chaos

TASKS = 3000
SETTINGS = {"WORKER__CONCURRENCY": 2, "ACCEPTED__FIRST_LOOK": 0.5, "ACCEPTED__LONGEST_WAIT": 1}


def test_no_message_of_a_backlog_is_sent_again(fleet):
    fleet.double.behaviour("slow", delay_ms=20)
    with Accepting(fleet) as api:
        messages = [api.accept([f"t{n}"], cache_enabled=False) for n in range(TASKS)]
        for message in messages:
            api.publish(message)
        doomed, *workers = [fleet.start(**SETTINGS) for _ in range(3)]
        assert_vectors(api.result(messages[TASKS // 4]).get(timeout=300), [f"t{TASKS // 4}"])
        doomed.kill()
        for n, message in enumerate(messages):
            assert_vectors(api.result(message).get(timeout=300), [f"t{n}"])
        resent = [event for worker in [doomed, *workers] for event in worker.events("accepted_task_republished")]
        assert resent == []
