"""Texts that wait for a call: most urgent first, in order of arrival within a lane."""

from collections import deque
from collections.abc import Iterator, Sequence

from citadel_contracts import Lane
from citadel_embeddings.work import Item


class Waiting:
    """The queue of one `CallKey`, so that a batch of thousands never stands before an interactive text."""

    def __init__(self) -> None:
        self._lanes: dict[Lane, deque[Item]] = {lane: deque() for lane in Lane}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Item]:
        """The waiting items, most urgent first."""
        return (item for lane, items in self._lanes.items() for item in items if item.queued and item.lane == lane)

    def add(self, items: Sequence[Item]) -> None:
        """Puts items at the end of their lanes."""
        for item in items:
            item.queued = True
            self._lanes[item.lane].append(item)
        self._count += len(items)

    def promote(self, item: Item, lane: Lane) -> None:
        """Moves an item to a more urgent lane; its old place is skipped later."""
        if lane >= item.lane:
            return
        item.lane = lane
        if item.queued:
            self._lanes[lane].append(item)

    def peek(self) -> Item | None:
        """The next item."""
        for lane, items in self._lanes.items():
            while items and not (items[0].queued and items[0].lane == lane):
                items.popleft()
            if items:
                return items[0]
        return None

    def remove(self, item: Item) -> None:
        """Takes an item out."""
        item.queued = False
        self._count -= 1
