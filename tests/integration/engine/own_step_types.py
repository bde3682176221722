"""Step types that Citadel does not ship, one for each effect, and a worker that has them.

`python -m tests.integration.engine.own_step_types` runs the worker.
"""

from citadel_contracts.workflows import EmbedPart
from citadel_orchestration.step_types import (
    Embed,
    Embedded,
    Execute,
    NestedDefinition,
    Parameters,
    StartRun,
    StepType,
    Wait,
)
from citadel_orchestration.worker import main


class Text(Parameters):
    text: str


class Shout(StepType):
    """Executes."""

    name = "shout"
    parameters = Text
    outputs = frozenset({"text"})
    calls = "shouts"

    def check(self, raw, catalog):
        del catalog
        if raw.get("text") == "psst":
            yield "/text", "is a whisper"

    def begin(self, parameters):
        return Execute(run=lambda call: self._shout(parameters.text, call))

    async def _shout(self, text, call):
        assert call.deadline.remaining > 0
        return {"text": text.upper()}


class Measure(StepType):
    """Embeds a text, and goes on with the vector."""

    name = "measure"
    parameters = Text
    outputs = frozenset({"numbers"})

    def texts(self, raw):
        del raw
        return 1

    def begin(self, parameters):
        return Embed(requests=[EmbedPart(texts=[parameters.text])], then=self._measured)

    def _measured(self, found):
        async def count(call):
            return {"numbers": len(found[0].vectors[0])}

        return Execute(run=count)


class Stamp(StepType):
    """Embeds a text; the answer is all that it needs."""

    name = "stamp"
    parameters = Text
    outputs = frozenset({"stamp", "numbers"})

    def begin(self, parameters):
        return Embed(requests=[EmbedPart(texts=[parameters.text])], echo={"stamp": parameters.text[0]})

    def answered(self, echo, answers):
        return {**echo, "numbers": Embedded.of(answers[0]).dimensions}


class Rest(Parameters):
    seconds: float | None = None
    bell: str | None = None


class Nap(StepType):
    """Waits for a time or a signal."""

    name = "nap"
    parameters = Rest
    outputs = frozenset()

    def begin(self, parameters):
        return Wait(seconds=parameters.seconds, signal=parameters.bell)


class Plan(Parameters):
    play: dict
    props: dict


class Perform(StepType):
    """Starts a run."""

    name = "perform"
    parameters = Plan
    outputs = frozenset({"output", "final_context", "run_id"})
    nested = NestedDefinition(definition="play", context="props")

    def begin(self, parameters):
        return StartRun(definition=parameters.play, context=parameters.props)


OWN_TYPES = (Shout(), Measure(), Stamp(), Nap(), Perform())

if __name__ == "__main__":
    main(OWN_TYPES)
