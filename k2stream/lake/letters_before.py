"""Dead letters from before there was a table of them: how many a ledger may name that no table has."""

from collections.abc import Sequence
from contextlib import suppress

from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.table import Table

from k2stream.lake.head import head_or_start

LETTER_TABLE = "dead_letters"
LETTER_SOURCES = ("trades", "quotes", "instruments")
"""Tables whose windows bring letters."""
LETTERS_BEFORE = "k2.letters-before"
"""Property of the table of dead letters: how many the ledgers of its sources named when it was made."""


def letters_in_ledgers(catalog: Catalog, namespace: str, sources: Sequence[str] = LETTER_SOURCES) -> int:
    """Dead letters that the sources' ledgers name now; a source that does not exist names none."""
    named = 0
    for source in sources:
        with suppress(NoSuchTableError):
            named += sum(entry.counts.dead_letters for entry in head_or_start(catalog.load_table((namespace, source))).vector.values())
    return named


def letters_before(table: Table) -> int | None:
    """How many letters its sources had before this table was made; None if it was made by a version that did not count them."""
    said = table.properties.get(LETTERS_BEFORE)
    return None if said is None else int(said)
