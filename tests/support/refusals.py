"""PostgreSQL that refuses writes with any SQLSTATE, on Citadel's own tables."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import psycopg

WORDS = "words of the server"
ROW = "contents of a row"
TABLES = ("runs", "steps", "payloads", "events", "accepted_tasks", "signals")
_INSTALL = f"""
CREATE TABLE IF NOT EXISTS refusals (run_id uuid, code text NOT NULL, of text NOT NULL DEFAULT 'payloads');
CREATE OR REPLACE FUNCTION refuse_all() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE wanted text;
BEGIN
    SELECT code INTO wanted FROM refusals WHERE run_id IS NULL;
    IF FOUND THEN RAISE EXCEPTION '{WORDS}' USING ERRCODE = wanted, DETAIL = '{ROW}', HINT = '{ROW}'; END IF;
    RETURN NULL;
END $$;
CREATE OR REPLACE FUNCTION refuse_row() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE wanted text;
BEGIN
    SELECT code INTO wanted FROM refusals WHERE run_id = NEW.run_id AND of = TG_TABLE_NAME;
    IF FOUND THEN RAISE EXCEPTION '{WORDS}' USING ERRCODE = wanted, DETAIL = '{ROW}', HINT = '{ROW}'; END IF;
    RETURN NEW;
END $$;
CREATE OR REPLACE TRIGGER refuse_row BEFORE INSERT ON payloads FOR EACH ROW EXECUTE FUNCTION refuse_row();
CREATE OR REPLACE TRIGGER refuse_row BEFORE UPDATE ON steps FOR EACH ROW EXECUTE FUNCTION refuse_row();
"""
_OF_TABLE = (
    "CREATE OR REPLACE TRIGGER refuse_all BEFORE INSERT OR UPDATE OR DELETE ON {} EXECUTE FUNCTION refuse_all();"
)


class Refusals:
    """Refusals of one database; the server itself raises them, as errors."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._execute(_INSTALL + "".join(map(_OF_TABLE.format, TABLES)))

    def of_outputs(self, codes: Mapping[Any, str]) -> None:
        """Refuse the outputs of runs, each with its own code; all their other writes pass."""
        for run_id, code in codes.items():
            self._execute(f"INSERT INTO refusals VALUES ('{run_id}', '{code}')")

    def of_steps(self, run_id: Any, code: str) -> None:
        """Refuse every change of a run's steps."""
        self._execute(f"INSERT INTO refusals VALUES ('{run_id}', '{code}', 'steps')")

    def of_everything(self, code: str) -> None:
        """Refuse all writes of all tables."""
        self._execute(f"INSERT INTO refusals VALUES (NULL, '{code}')")

    def end(self) -> None:
        """Refuse nothing more."""
        self._execute("DELETE FROM refusals")

    @contextlib.contextmanager
    def everything(self, code: str) -> Iterator[None]:
        """Refuse all writes for the block."""
        self.of_everything(code)
        try:
            yield
        finally:
            self.end()

    def _execute(self, statements: str) -> None:
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            connection.execute(statements.encode())
