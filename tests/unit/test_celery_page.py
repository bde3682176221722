"""docs/celery.md promises nothing that no test shows."""

import re
from pathlib import Path

import pytest

PAGE = Path("docs/celery.md").read_text(encoding="utf-8")
TESTS = "\n".join(path.read_text(encoding="utf-8") for path in Path("tests/integration/canvas").glob("test_*.py"))
SHOWN_BY = {
    "`link`": "test_a_callback_gets_the_result test_a_callback_waits_for_the_end_of_the_run",
    "several callbacks": "test_several_callbacks_are_a_group_of_children",
    "`chain`": "test_tasks_of_both_sides_take_turns test_a_run_follows_a_run",
    "`group`": "test_a_group_has_all_results",
    "`chord`": "test_the_body_of_a_chord_gets_the_results_in_order",
    "a chord that lasts long": "test_a_chord_is_kept_for_longer_than_results",
    "nested chains, groups, chords": (
        "test_a_chord_of_chains test_chains_that_end_in_runs"
        " test_a_chord_within_a_chain_and_a_task_of_citadel_as_its_body"
        " test_a_group_in_the_middle_becomes_a_chord test_a_group_in_a_header_is_part_of_it"
        " test_a_group_at_the_end_of_a_chain_in_a_header_keeps_its_structure test_a_chord_as_a_callback"
    ),
    "immutable signatures (`.si()`)": "test_a_task_of_citadel_needs_no_queue_after_the_first",
    "`success: false`": "test_an_answer_without_success_is_a_result_too test_a_cancelled_run_is_followed_too",
    "`link_error`": (
        "test_an_errback_on_the_clients_worker_gets_the_tasks_id test_each_errback_is_called_with_its_own_arguments"
        " test_a_refused_message_calls_its_errback_and_fails_its_chord"
        " test_an_errback_is_called_once test_an_errback_of_the_new_form_is_called_with_the_id"
    ),
    "the rest of a chain after a failure": "test_a_failure_fails_the_rest_of_the_chain",
    "a chord whose header fails": (
        "test_a_failed_part_fails_the_chord_and_calls_the_bodys_errback test_a_group_in_a_chain_fails_its_chord"
        " test_the_clients_own_failure_fails_a_chord_of_runs"
    ),
    "`self.replace`": "test_a_task_replaces_itself_by_a_task_of_citadel",
    "callback without a queue": "test_a_callback_gets_the_result test_a_task_of_citadel_needs_no_queue_after_the_first",
    "`queue`, `exchange`, `routing_key` of a callback": (
        "test_a_callback_goes_to_the_queue_that_it_names test_a_callback_goes_where_its_exchange_and_routing_key_lead"
    ),
    "`priority`": "test_a_callback_has_no_priority_but_its_own",
    "`ignore_result`": (
        "test_an_ignored_result_is_not_stored_and_followed test_ignored_results_are_counted_in_a_chord"
    ),
    "`expires`": "test_a_task_that_is_too_old_is_revoked_and_not_followed",
    "`time_limit`, `soft_time_limit`": "test_a_time_limit_bounds_a_run test_a_time_limit_bounds_a_task",
    "`parent_id`, `root_id`, `group_id`": "test_a_result_names_its_parent_and_its_group",
    "`AsyncResult.children`": "test_the_callback_is_the_child_of_its_task",
    "stamps": "test_the_stamps_of_a_canvas_reach_the_callback",
    "`task_id` used again": (
        "test_a_task_that_is_sent_again_by_its_id_is_followed_again"
        " test_another_definition_under_the_id_of_a_run_is_refused"
    ),
    "the message is delivered again (a worker died, Redis was away)": (
        "test_a_message_that_is_delivered_again_has_its_callback_once test_a_part_that_comes_again_is_counted_once"
        " test_a_chord_goes_on_after_a_worker_died_while_it_published_the_body"
    ),
    "a run that is retried after its end": "test_a_run_that_is_retried_after_its_end_is_followed_once",
    "`map`, `starmap`": (
        "test_starmap_and_map_call_a_task_for_each_item test_a_map_of_nothing test_a_map_whose_item_fails_fails"
    ),
    "`chunks`": "test_chunks_are_groups_of_starmaps",
    "Celery's other tasks (`celery.chord_unlock`, `celery.group`, `celery.chord`, `celery.chain`, `celery.chunks`)": (
        "test_other_tasks_of_celerys_own_are_refused"
    ),
    "a dead letter that is requeued": "test_a_dead_letter_that_is_requeued_goes_on_with_its_chain",
    "what cannot be published (a signature that Celery cannot read)": "test_what_cannot_be_published_fails_the_task",
}
"""Rows of the table of canvas, and the tests of each."""


def rows():
    table = PAGE.split("## Canvas\n", 1)[1].split("\n## ", 1)[0]
    return re.findall(r"^\| (?!case|---)(.+?) \| ", table, re.MULTILINE)


def test_each_row_of_the_table_has_its_tests():
    assert rows() == list(SHOWN_BY)


@pytest.mark.parametrize("name", sorted({name for names in SHOWN_BY.values() for name in names.split()}))
def test_a_test_of_a_row_exists(name):
    assert f"def {name}(" in TESTS
