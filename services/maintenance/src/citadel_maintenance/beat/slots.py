"""Slots: the moments at which an entry is due, in whole milliseconds since the epoch, aligned to UTC.

Every candidate computes the same slots from the same text, whatever it did before: that is what lets a slot be
claimed by its time alone.
"""

from datetime import UTC, datetime, timedelta
from typing import Protocol

from celery.schedules import ParseException, crontab

from citadel_maintenance.beat.durations import format_milliseconds

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_MINUTE = 60_000
_LOOK_BACK = 44 * 366 * 24 * 60 * _MINUTE
"""The rarest crontab, a 29 February on one weekday, comes once in 40 years at least."""


class Slots(Protocol):
    """When an entry is due; `str` of it is for people."""

    def latest(self, moment: int) -> int:
        """The last slot that is not after a moment."""

    def following(self, moment: int) -> int:
        """The first slot after a moment."""


class Interval:
    """The multiples of a period.

    Args:
        period: Milliseconds.
    """

    def __init__(self, period: int) -> None:
        self._period = period

    def latest(self, moment: int) -> int:
        """The last slot that is not after a moment."""
        return moment // self._period * self._period

    def following(self, moment: int) -> int:
        """The first slot after a moment."""
        return self.latest(moment) + self._period

    def __str__(self) -> str:
        return f"every {format_milliseconds(self._period)}"


class Crontab:
    """The minutes that a crontab names, in UTC.

    Args:
        text: Five fields: minute, hour, day of the month, month, day of the week.

    Raises:
        ValueError: It is no crontab, or one that names no day that exists.
    """

    def __init__(self, text: str) -> None:
        fields = text.split()
        if len(fields) != 5:
            raise ValueError("must have five fields: minute, hour, day of the month, month, day of the week")
        self._text = " ".join(fields)
        self._crontab = _parsed(self._text)

    def latest(self, moment: int) -> int:
        """The last slot that is not after a moment; found by bisection, as a crontab only tells what follows."""
        slot, after = moment - _LOOK_BACK, moment
        while (found := self.following(slot)) <= moment:
            slot = found
            while after - slot > _MINUTE:
                middle = (slot + after) // 2
                found = self.following(middle)
                slot, after = (found, after) if found <= moment else (slot, middle)
        return slot

    def following(self, moment: int) -> int:
        """The first slot after a moment."""
        start, step, _ = self._crontab.remaining_delta(_EPOCH + moment * _MILLISECOND, tz=UTC)
        return int((start + step - _EPOCH) // _MILLISECOND)

    def __str__(self) -> str:
        return f"crontab {self._text}"


def _parsed(text: str) -> crontab:
    try:
        parsed = crontab.from_string(text)
    except (ParseException, ValueError, TypeError, LookupError) as error:
        raise ValueError(f"{text!r} is no crontab: {error}") from None
    # Otherwise it asks Celery's current application for its time zone and clock.
    parsed.tz, parsed.nowfun = UTC, lambda: datetime.now(UTC)
    return parsed
