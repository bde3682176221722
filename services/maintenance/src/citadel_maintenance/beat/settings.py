"""Settings of a beat candidate.

`CITADEL_BEAT__SCHEDULE` as JSON, and one variable per field, both change the built-in schedule entry by entry and
field by field: `CITADEL_BEAT__SCHEDULE__HEALTH__EVERY=60` leaves the other fields as they were, a new name adds an
entry, and `…__ENABLED=false` switches one off. Names are in lower case, because variables do not distinguish case.
The whole schedule is checked against the contracts of the tasks when it is read.
"""

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StringConstraints, field_validator, model_validator

from citadel_common.durations import SECONDS, parse_duration
from citadel_common.errors import InvalidInput
from citadel_common.settings.common import CommonSettings, Fragment
from citadel_common.validation import parse_payload
from citadel_contracts import TASKS, AnyTaskSpec, Lane
from citadel_maintenance.beat.entry import Entry
from citadel_maintenance.beat.slots import Crontab, Interval, Slots

_SPECS: dict[str, AnyTaskSpec] = {spec.name: spec for spec in TASKS}
_MOST_ENTRIES = 500
_TIMES = ("every", "crontab")
EntryName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")]
BUILT_IN: dict[str, dict[str, Any]] = {
    "health": {"task": "system_health_check", "every": "5m"},
    "metrics": {"task": "collect_system_metrics", "every": "1m"},
    "cache": {"task": "cleanup_expired_cache", "every": "1h"},
    "purge_runs": {"task": "citadel.purge_runs", "every": "1m"},
    "purge_results": {"task": "citadel.purge_results", "crontab": "20 * * * *"},
    "purge_dead_letters": {"task": "citadel.purge_dead_letters", "crontab": "30 * * * *"},
    "purge_orphans": {"task": "citadel.purge_orphans", "crontab": "40 * * * *"},
    "reroute_messages": {"task": "citadel.reroute_messages", "every": "1m"},
    "advise_vacuum": {"task": "citadel.advise_vacuum", "crontab": "50 3 * * *"},
}
"""The default schedule: name → fields of `EntrySettings`. Hourly entries start at different minutes."""


def _duration(value: Any) -> float:
    seconds = parse_duration(value.strip() if isinstance(value, str) else value, units=SECONDS)
    if seconds is None or not 0.001 <= seconds <= 366 * 86400:
        raise ValueError('must be a duration of at most a year: seconds, or text such as "90s", "5m", "1h", "1d"')
    return seconds


Duration = Annotated[float, BeforeValidator(_duration)]
"""A field that holds seconds, from a millisecond to a year."""


class EntrySettings(Fragment):
    """One entry of the schedule."""

    task: str = Field(description="Registered name of the task")
    every: Duration | None = Field(
        None,
        description="Time between slots: seconds, or text such as 5m; slots are its multiples since the epoch",
    )
    crontab: str | None = Field(
        None, description="Instead of `every`: minute, hour, day of month, month, day of week, in UTC; `10 * * * *`"
    )
    args: dict[str, Any] = Field(default_factory=dict, description="Arguments of the task by name (JSON)")
    lane: Literal["interactive", "standard", "batch"] | None = Field(
        None, description="Lane of its messages; default: the lane of the task"
    )
    missed: Literal["skip", "run_once"] = Field(
        "run_once", description="What to do about slots at which nobody led: skip them, or run the last one once"
    )
    max_lateness: Duration | None = Field(
        None, description="Time after which a missed slot does not run any more; default: until the next slot"
    )
    enabled: bool = Field(True, description="Whether it runs")

    @field_validator("crontab")
    @classmethod
    def _is_crontab(cls, text: str | None) -> str | None:
        if text is not None:
            Crontab(text)
        return text

    @model_validator(mode="after")
    def _fits_its_task(self) -> "EntrySettings":
        if (self.every is None) == (self.crontab is None):
            raise ValueError("needs exactly one of every and crontab")
        if self.enabled:
            _check_args(_spec_of(self.task), self.args)
        return self

    @property
    def slots(self) -> Slots:
        """The slots of the entry."""
        return Crontab(self.crontab) if self.crontab else Interval(round((self.every or 0) * 1000))

    def entry(self, name: str, *, on_time: float) -> Entry:
        """Return the entry; `on_time` in seconds."""
        spec = _spec_of(self.task)
        punctual = round(on_time * 1000)
        longest = None if self.max_lateness is None else round(self.max_lateness * 1000)
        return Entry(
            name=name,
            spec=spec,
            slots=self.slots,
            kwargs=self.args,
            lane=Lane[self.lane.upper()] if self.lane else spec.lane,
            on_time=punctual if longest is None else min(punctual, longest),
            latest=longest if self.missed == "run_once" else 0,
        )


def _spec_of(task: str) -> AnyTaskSpec:
    spec = _SPECS.get(task)
    if spec is None:
        near = difflib.get_close_matches(task, _SPECS, n=3, cutoff=0.5)
        hint = f"near names: {', '.join(near)}" if near else f"known tasks: {', '.join(sorted(_SPECS))}"
        raise ValueError(f"there is no task {task[:100]!r}; {hint}")
    return spec


def _check_args(spec: AnyTaskSpec, args: dict[str, Any]) -> None:
    try:
        parse_payload(spec.payload, (), args)
    except InvalidInput as error:
        raise ValueError(f"args do not fit {spec.name}: {error.message}") from None


def _built_in() -> dict[str, EntrySettings]:
    return {name: EntrySettings(**fields) for name, fields in BUILT_IN.items()}


def _merged(given: dict[str, Any]) -> dict[str, Any]:
    """Return the built-in entries, changed field by field by the given ones."""
    entries: dict[str, Any] = {name: dict(fields) for name, fields in BUILT_IN.items()}
    for name, fields in given.items():
        entries[name] = _changed(entries.get(name, {}), fields) if isinstance(fields, dict) else fields
    return entries


def _changed(fields: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of an entry, changed; a given time replaces the built-in one of either kind."""
    retimed = any(given.get(time) is not None for time in _TIMES)
    kept = {name: value for name, value in fields.items() if not (retimed and name in _TIMES)}
    return kept | given


class BeatFragment(Fragment):
    """The periodic schedule."""

    lock_ttl: float = Field(
        15.0,
        ge=0.5,
        description="Seconds after which a leader that fell silent can be replaced by another candidate",
    )
    on_time: float = Field(
        5.0, ge=0.001, le=60, description="Seconds within which a slot is on time; after that it counts as missed"
    )
    min_interval: float = Field(1.0, ge=0.05, description="Smallest number of seconds allowed for `every`")
    health_file: Path | None = Field(None, description="File touched while the candidate is healthy, leading or not")
    schedule: dict[EntryName, EntrySettings] = Field(
        default_factory=_built_in,
        max_length=_MOST_ENTRIES,
        description="Entries by name; they change the built-in schedule entry by entry and field by field",
    )

    @field_validator("schedule", mode="before")
    @classmethod
    def _over_the_built_in(cls, given: Any) -> Any:
        return _merged(given) if isinstance(given, dict) else given

    @model_validator(mode="after")
    def _intervals_are_long_enough(self) -> "BeatFragment":
        for name, entry in self.schedule.items():
            if entry.every is not None and entry.every < self.min_interval:
                raise ValueError(f"schedule.{name}.every: must be at least {self.min_interval:g} s (beat.min_interval)")
        return self

    def entries(self) -> list[Entry]:
        """Return the entries that are enabled."""
        return [
            settings.entry(name, on_time=self.on_time) for name, settings in self.schedule.items() if settings.enabled
        ]


class BeatSettings(CommonSettings):
    """All settings of a beat candidate."""

    beat: BeatFragment = Field(default_factory=BeatFragment)
