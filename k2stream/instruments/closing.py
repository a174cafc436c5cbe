"""A closed window of changes on its way into the table of instruments; blocks, runs in the sink thread."""

from k2stream.capture.closing import Closing, files_of
from k2stream.capture.edges import Edges, Staged
from k2stream.capture.stages import Stages
from k2stream.instruments.changes import settle_changes
from k2stream.pipeline import Settled
from k2stream.window import OpenWindow


def settle_and_write_changes(edges: Edges, closing: Closing, window: OpenWindow, stages: Stages) -> tuple[Settled, Staged]:
    """As capture.closing.settle_and_write, without dedup and sequences."""
    edges.on_step("0.settle")
    settled = settle_changes(window.judged)
    closing.dirty |= set(settled.spans)
    with stages.timed("write"):
        staged = edges.table.write(files_of(closing, window, settled))
    return settled, staged
