"""Files that nothing names any more, off the store: what crashes left, what compaction and retention replaced.

Live is what any manifest of any kept snapshot names, every snapshot's manifest list, tracker file and outbox files, and the metadata
files of the table's log; of all tables, for one names files in another's folder. A file goes only if it is older than the safety age *and* has
been known unnamed for as long as a reader may take: what compaction replaced is old already, and whoever pinned a snapshot still reads it.
The time at which a file was first seen unnamed is kept beside the table, in `upkeep/unnamed.json`.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import structlog
from pyiceberg.table import Table

from k2stream.errors import LakeError
from k2stream.lake.expiry import outbox_files, tracker_files
from k2stream.lake.head import name_of
from k2stream.lake.listing import Found, files_below, plain
from k2stream.lake.overwrite import live_files
from k2stream.lake.trouble import translated
from k2stream.lake.writer import read_bytes, write_bytes

log = structlog.get_logger(__name__)

KINDS = (".parquet", ".avro", ".metadata.json", ".tracker")
"""What k2stream and Iceberg write; what else lies there is somebody's, and stays."""


@dataclass(frozen=True, slots=True)
class Orphans:
    """What was found below one table."""

    gone: tuple[Found, ...]
    """Deleted; with `is_dry` what would be."""
    waiting: tuple[Found, ...]
    """Named by nothing, but too young, not known for long enough, or not to be deleted just now."""
    unknown: tuple[Found, ...]
    """Of no kind that k2stream writes."""

    @property
    def gone_bytes(self) -> int:
        return sum(f.size_bytes for f in self.gone)


def remove_orphans(table: Table, others: Sequence[Table], *, now_us: int, age_us: int, read_us: int, is_dry: bool = False) -> Orphans:
    """Delete what nothing names below `table`; `table` and `others` are loaded again after its files were listed.

    Raises LakeError if the store does not answer, or if the listing lacks a file that the head names: then nothing is deleted.
    """
    sure = {plain(path) for path in live_files(table)}
    found = files_below(table, now_us=now_us)
    if missing := sure - {plain(f.location) for f in found}:
        raise LakeError(f"{name_of(table)} names {len(missing)} files that its store does not list, {min(missing)} first. Nothing was deleted; run `k2 audit`.")
    live = {plain(name) for each in (table, *others) for name in named_by(_now(each))}
    unnamed = [f for f in found if plain(f.location) not in live]
    ours = [f for f in unnamed if f.location.endswith(KINDS)]
    since = _since(table, ours, now_us)
    over = [f for f in ours if now_us - f.changed_at_us >= age_us and now_us - since[f.location] >= read_us]
    gone = over if is_dry else _delete(table, over)
    waiting = sorted(set(ours) - set(gone))
    if not is_dry:
        _keep(table, {f.location: since[f.location] for f in waiting})
    return Orphans(tuple(gone), tuple(waiting), tuple(f for f in unnamed if not f.location.endswith(KINDS) and f.location != _ledger(table)))


def _now(table: Table) -> Table:
    with translated("read the table", name_of(table)):
        return table.refresh()


def named_by(table: Table) -> set[str]:
    """Every file that the table, as loaded, names; raises LakeError if a list of files cannot be read."""
    metadata, names, manifests = table.metadata, {table.metadata_location}, set[str]()
    names |= {entry.metadata_file for entry in metadata.metadata_log}
    names |= {s.statistics_path for s in (*metadata.statistics, *metadata.partition_statistics)}
    names |= outbox_files(metadata.snapshots)
    with translated("read the list of data files", name_of(table)):
        for snapshot in metadata.snapshots:
            names |= {snapshot.manifest_list, *tracker_files(snapshot)}
            for manifest in snapshot.manifests(table.io):
                if manifest.manifest_path not in manifests:
                    manifests.add(manifest.manifest_path)
                    names |= {e.data_file.file_path for e in manifest.fetch_manifest_entry(table.io, discard_deleted=True)}
    return names | manifests


def _delete(table: Table, files: Iterable[Found]) -> list[Found]:
    """Those of `files` that are gone."""
    gone = list[Found]()
    for file in files:
        try:
            with suppress(FileNotFoundError):
                table.io.delete(file.location)
            gone.append(file)
        except OSError as exc:  # what cannot be deleted now is tried again
            log.warning("orphan.kept", file=file.location, cause=str(exc))
    if gone:
        log.info("orphans.deleted", table=name_of(table), files=len(gone))
    return gone


def _ledger(table: Table) -> str:
    return f"{table.location().rstrip('/')}/upkeep/unnamed.json"


def _since(table: Table, files: Iterable[Found], now_us: int) -> dict[str, int]:
    """When each file was first seen unnamed: now, for those that are new."""
    known = _kept(table)
    return {f.location: known.get(f.location, now_us) for f in files}


def _kept(table: Table) -> Mapping[str, int]:
    try:
        kept: Mapping[str, int] = json.loads(read_bytes(table.io, _ledger(table)))
        return {name: int(since) for name, since in kept.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, TypeError) as exc:  # then files wait once more
        log.warning("unnamed_files.unreadable", file=_ledger(table), cause=str(exc))
        return {}


def _keep(table: Table, since: Mapping[str, int]) -> None:
    with translated("keep what is named by nothing", _ledger(table)):
        write_bytes(table.io, _ledger(table), json.dumps(since, indent=0).encode())
