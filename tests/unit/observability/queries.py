"""A minimal reader of PromQL: the metrics in a query, and the labels of its matchers."""

import re
from collections.abc import Iterator

STRING = re.compile(r'"(?:\\.|[^"\\])*"')
SELECTOR = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)\{([^}]*)\}")
GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)")
RANGE = re.compile(r"\[[^\]]*\]")
OFFSET = re.compile(r"\boffset\s+\S+")
NAME = re.compile(r"(?<![\w:.])[a-zA-Z_:][a-zA-Z0-9_:]*(?!\s*\()(?![\w:])")
WORDS = {"and", "or", "unless", "bool", "by", "without"}


def metrics_of(query: str) -> set[str]:
    """Return the names of metrics and recorded series in a query."""
    bare = RANGE.sub("", GROUPING.sub("", STRING.sub("", query)))
    bare = re.sub(r"\{[^}]*\}", "", OFFSET.sub("", bare))
    return set(NAME.findall(bare)) - WORDS


def matched_labels(query: str) -> Iterator[tuple[str, str]]:
    """Yield metric and label of each matcher."""
    for metric, matchers in SELECTOR.findall(STRING.sub('""', query)):
        for matcher in matchers.split(","):
            if matcher.strip():
                yield metric, re.split(r"=~|!~|!=|=", matcher)[0].strip()
