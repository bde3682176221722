"""Settings of Qdrant's double."""

from dataclasses import dataclass

from tests.doubles.base.settings import flag


@dataclass(frozen=True, kw_only=True, slots=True)
class QdrantSettings:
    """Settings of the double; each is a flag of its command line."""

    api_key: str = flag("", "key demanded in the api-key header; empty demands none")
    storage: str = flag("", "directory in which collections outlive the process; empty keeps them in memory")
