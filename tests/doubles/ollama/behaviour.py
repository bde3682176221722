"""Faults of Ollama's double.

Modes, besides those of `tests.doubles.base.behaviour`:
    slow            holds its slot longer
    dead            touches every route by default
    disconnect      closes the connection after half of the answer
    loading         unloads the models once; the next use loads them for `delay_ms` (default 500),
                    and requests beyond `--max-queue` meanwhile get the busy 503
    nan, runner400, too_long400, auth401, not_found404, rate429, error500, html502, busy503
                    the error of REFUSALS (`nan`: base64 answers carry real NaN bytes instead)
    zero, infinite, null, wrong_dimension
                    that flaw in the vector of every text (`vectors.Flaw`)
    missing, extra  one vector fewer, one more than there were inputs
    shuffled        `/v1` items in reverse order, their `index` right
    empty_answer    `{}` with status 200
    garbage_json    half of the answer's JSON with status 200
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from tests.doubles.base.behaviour import COMMON_MODES, Behaviour
from tests.doubles.base.refusals import COMMON, Refusal
from tests.doubles.ollama.markers import DEFAULT_MARKERS, Markers
from tests.doubles.ollama.models import canonical
from tests.doubles.ollama.vectors import FLAW_MODES

NAN = "failed to encode response: json: unsupported value: NaN"
RUNNER_GONE = 'do embedding request: Post "http://127.0.0.1:35221/embedding": EOF'
REFUSALS = COMMON | {
    "nan": Refusal(status=400, message=NAN),
    "runner400": Refusal(status=400, message=RUNNER_GONE),
    "too_long400": Refusal(status=400, message="Please shorten your input", code="context_length_exceeded"),
    "not_found404": Refusal(status=404, message="model not found, try pulling it first"),
}
ANSWER_MODES = frozenset({"missing", "extra", "shuffled", "empty_answer", "garbage_json"})
FRUITFUL_MODES = ANSWER_MODES | FLAW_MODES | {"slow", "disconnect"}
"""Modes that do the work, late or badly."""


@dataclass(frozen=True, kw_only=True)
class OllamaBehaviour(Behaviour):
    """One behaviour; it touches embedding requests, and other routes as `routes` says."""

    MODES: ClassVar = COMMON_MODES | FRUITFUL_MODES | {"loading"} | REFUSALS.keys()
    REFUSALS: ClassVar = REFUSALS
    DELAYS_MS: ClassVar = {"slow": 1000.0, "loading": 500.0}

    # "embed", "side" (the catalogue and health routes) or "all"; None is the mode's own default
    routes: str | None = None
    # another version of every model, as a pull replaces them; None is that of the settings
    digest_salt: str | None = None
    # text that marks an input, and what it does to it
    markers: Mapping[str, str] = field(default_factory=lambda: DEFAULT_MARKERS)

    def __post_init__(self) -> None:
        super().__post_init__()
        Markers(self.markers)  # refuses unknown actions
        if self.routes not in {None, "embed", "side", "all"}:
            raise ValueError("routes is embed, side or all")

    def touches(self, model: str) -> bool:
        """Return True if requests for a model are touched."""
        return self.routes != "side" and (not self.only_models or model in map(canonical, self.only_models))

    def side_mode(self, mode: str) -> str:
        """Return the mode of the side routes while embedding requests have this one."""
        routes = self.routes or ("all" if mode == "dead" else "embed")
        return "ok" if routes == "embed" else mode
