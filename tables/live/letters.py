"""Dead letters by origin: which there are, and why."""

import faust
from faust.types import TableT


def letters_table(app: faust.App) -> TableT[str, str]:
    """Origin `topic/partition/offset` -> reason; kept in a changelog topic, partitioned as the letters are."""
    return app.Table("letters", default=str, partitions=None, help="Reason of each dead letter by its origin")
