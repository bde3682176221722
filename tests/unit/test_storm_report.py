"""The report of a storm: each way to break a promise is an offence, and what a fault may destroy is not."""

import pytest

from tests.chaos.storm.definitions import SHAPES, Workflow, everything
from tests.chaos.storm.expectations import MODEL, prompt, vectors_problem
from tests.chaos.storm.ledger import Fate, Kind, Ledger
from tests.chaos.storm.report import MIB, Memory, Report, Window
from tests.chaos.storm.schedule import scheduled
from tests.chaos.storm.watcher import problem_of
from tests.doubles.llm.requests import expected_answer
from tests.doubles.ollama.vectors import expected_vector

TEXTS = ["a", "b"]


def vectors(*texts: str) -> list[list[float]]:
    return [expected_vector(MODEL, text).tolist() for text in texts]


def report_of(fate: Fate) -> Report:
    ledger = Ledger("t")
    entry = ledger.offer(Kind.TASK)
    ledger.accept(entry, "id")
    ledger.end(entry, fate, "because")
    return Report(seed=1, entries=ledger.entries())


@pytest.mark.parametrize("fate", [Fate.LOST, Fate.STUCK, Fate.FAILED, Fate.WRONG])
def test_work_that_was_accepted_and_has_no_right_end_is_an_offence(fate: Fate) -> None:
    report = report_of(fate)
    assert report.offences == [f"{fate}: task (HTTP, 202) t-0: because"]
    assert str(report).count(report.offences[0]) == 1


@pytest.mark.parametrize("fate", [Fate.FINISHED, Fate.REFUSED, Fate.DESTROYED])
def test_work_that_finished_was_refused_or_was_destroyed_by_a_flush_is_none(fate: Fate) -> None:
    assert report_of(fate).offences == []
    assert "nothing lost" in str(report_of(fate))


@pytest.mark.parametrize(
    "found",
    [
        {"twice": ["a step"]},
        {"left": ["a message"]},
        {"others": ["a process ended"]},
        {"memory": [Memory(process="api 1", last=2 * MIB, most=2 * MIB, bound=MIB)]},
        {"windows": [Window(fault="x", begin=0, end=1, healed=16)], "heal_bound": 15.0},
    ],
)
def test_what_is_twice_left_ended_large_or_not_healed_is_an_offence(found: dict[str, object]) -> None:
    assert len(Report(seed=1, **found).offences) == 1  # type: ignore[arg-type]


@pytest.mark.parametrize("found", [vectors("b", "a"), vectors("a"), [*vectors("a"), None], None, [[0.5], [0.5]]])
def test_vectors_of_other_texts_are_found(found: object) -> None:
    assert vectors_problem(vectors(*TEXTS), TEXTS) == ""
    assert vectors_problem(found, TEXTS)


def right_output(name: str, number: int) -> dict[str, object]:
    inner = f"{name}-sub"
    return {
        "vectors": vectors(f"first of {name}", f"second of {name}"),
        "hit": number,
        "each": [expected_answer(prompt(name, "each", item)) for item in range(3)],
        "sub": {
            "vectors": vectors(f"first of {inner}", f"second of {inner}"),
            "text": expected_answer(prompt(inner, "ask")),
        },
        "sig": {"name": name},
        "last": expected_answer(prompt(name, "last")),
    }


@pytest.mark.parametrize("key", list(right_output("n", 1)))
def test_each_part_of_a_workflows_output_is_checked(key: str) -> None:
    workflow, right, other = everything("n", 1), right_output("n", 1), right_output("m", 2)
    assert workflow.problem(right) == ""
    assert workflow.problem(right | {key: other[key]})
    assert workflow.problem({name: value for name, value in right.items() if name != key})


def test_results_of_tasks_are_checked() -> None:
    ledger = Ledger("t")
    entry = ledger.offer(Kind.PLAIN, TEXTS)
    assert problem_of(entry, {"embeddings": vectors(*TEXTS)}) == ""
    assert problem_of(entry, {"embeddings": vectors("a", "a")})
    shape: Workflow = SHAPES[0]("n", 1)
    run = ledger.offer(Kind.PLAIN_WORKFLOW, shape.problem)
    assert problem_of(run, {"success": False, "error": "it failed"}) == "it failed"
    assert problem_of(run, {"success": True, "output": None})


def test_a_seed_makes_the_same_faults_and_each_comes_once_a_round() -> None:
    names = ["redis flushed", "api killed", "llm dead"]

    def some(seed: int) -> list[object]:
        return [fault for _, fault in zip(range(6), scheduled(seed, names), strict=False)]

    assert some(7) == some(7) != some(8)
    assert sorted(fault.name for fault in some(7)[3:]) == sorted(names)  # type: ignore[attr-defined]
