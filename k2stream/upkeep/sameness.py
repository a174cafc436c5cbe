"""Do two sets of data files hold the same rows? Asked of DuckDB, which reads them as every query does, and not as they were merged."""

from collections.abc import Sequence

from k2stream.query.engine import Engine
from k2stream.query.fingerprint import FROM_FILES, table_fingerprint
from k2stream.table_file import TableFile


def is_same(engine: Engine, before: Sequence[TableFile], after: Sequence[TableFile], columns: Sequence[str]) -> bool:
    """True for equal rows, each as often, in whatever files and order; a column that no file of `before` has is not asked for. Raises QueryError."""
    held = set(engine.ask(f"SELECT * {FROM_FILES} LIMIT 0", files=before).schema.names)
    names = [name for name in columns if name in held]
    return table_fingerprint(engine, before, names) == table_fingerprint(engine, after, names)
