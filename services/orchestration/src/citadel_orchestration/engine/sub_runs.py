"""Sub-runs: a step of type `workflow` is a run of its own."""

import uuid
from dataclasses import replace

from citadel_common.errors import InvalidInput
from citadel_orchestration.db.models import NewRun, ParentStep, StepClaim
from citadel_orchestration.definition.definition import Definition, Step
from citadel_orchestration.engine.submission import Origin, Submissions
from citadel_orchestration.step_types import StartRun

MOST_NESTED = 5


def timeout_of(definition: Definition, step: Step) -> float | None:
    """Seconds that a sub-run may take, if the definition says so: what holds for a call by itself is too short here."""
    written = definition.raw["steps"][step.index].get("timeout")
    default = (definition.raw.get("defaults") or {}).get("timeout")
    return None if written is None and default is None else step.timeout


def sub_run(submissions: Submissions, claim: StepClaim, effect: StartRun) -> NewRun:
    """The run that a step starts; the same attempt starts the same one, and no other: a key of its own has no say.

    Raises:
        InvalidDefinition: The definition is not valid.
        InvalidInput: Runs are nested too deeply.
    """
    if claim.depth >= MOST_NESTED:
        raise InvalidInput.at("definition", f"runs are nested {MOST_NESTED} deep already")
    definition = submissions.check(effect.definition)
    place = f"{claim.ref.step_id}/{claim.ref.item}/{claim.attempt}"
    run = submissions.run_of(
        definition,
        run_id=uuid.uuid5(claim.ref.run_id, place),
        origin=Origin(
            parent=ParentStep(ref=claim.ref, attempt=claim.attempt),
            depth=claim.depth + 1,
            lane=claim.lane,
        ),
        context=effect.context,
    )
    return replace(run, idempotency_key=None)
