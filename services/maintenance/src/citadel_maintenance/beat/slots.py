"""Slots: the moments at which an entry is due, in whole milliseconds since the epoch, aligned to UTC.

Every candidate computes the same slots from the same text, whatever it did before. So a slot's time alone identifies
it, and the ledger can record it as settled.
"""

from datetime import UTC, datetime, timedelta
from typing import Protocol

from celery.schedules import ParseException, crontab

from citadel_common.durations import format_duration

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_MINUTE = 60_000
_LOOK_BACK = 44 * 366 * 24 * 60 * _MINUTE
"""Longer than the 40 years after which the rarest crontab, a 29 February on one weekday, comes again."""


class Slots(Protocol):
    """When an entry is due; `str` of it is for people."""

    def latest(self, moment: int) -> int:
        """Return the last slot at or before a moment."""

    def following(self, moment: int) -> int:
        """Return the first slot after a moment."""


class Interval:
    """The multiples of a period.

    Args:
        period: Milliseconds.
    """

    def __init__(self, period: int) -> None:
        self._period = period

    def latest(self, moment: int) -> int:
        """Return the last slot at or before a moment."""
        return moment // self._period * self._period

    def following(self, moment: int) -> int:
        """Return the first slot after a moment."""
        return self.latest(moment) + self._period

    def __str__(self) -> str:
        return f"every {format_duration(self._period, units=('d', 'h', 'm', 's'))}"


class Crontab:
    """The minutes that match a crontab, in UTC.

    Args:
        text: Five fields: minute, hour, day of the month, month, day of the week.

    Raises:
        ValueError: The text is not a crontab, or names no day that exists.
    """

    def __init__(self, text: str) -> None:
        fields = text.split()
        if len(fields) != 5:
            raise ValueError("must have five fields: minute, hour, day of the month, month, day of the week")
        self._text = " ".join(fields)
        self._crontab = _parsed(self._text)

    def latest(self, moment: int) -> int:
        """Return the last slot at or before a moment."""
        # Celery's crontab only computes what follows a moment, so this bisects. `slot` is always at or before the
        # moment, and there is none between `after` and the moment.
        slot, after = moment - _LOOK_BACK, moment
        while (found := self.following(slot)) <= moment:
            slot = found
            while after - slot > _MINUTE:
                middle = (slot + after) // 2
                found = self.following(middle)
                slot, after = (found, after) if found <= moment else (slot, middle)
        return slot

    def following(self, moment: int) -> int:
        """Return the first slot after a moment."""
        start, step, _ = self._crontab.remaining_delta(_EPOCH + moment * _MILLISECOND, tz=UTC)
        return int((start + step - _EPOCH) // _MILLISECOND)

    def __str__(self) -> str:
        return f"crontab {self._text}"


def _parsed(text: str) -> crontab:
    try:
        parsed = crontab.from_string(text)
    except (ParseException, ValueError, TypeError, LookupError) as error:
        raise ValueError(f"{text!r} is not a crontab: {error}") from None
    # Without these Celery asks its current application for time zone and clock.
    parsed.tz, parsed.nowfun = UTC, lambda: datetime.now(UTC)
    return parsed
