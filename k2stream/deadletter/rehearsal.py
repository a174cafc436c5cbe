"""What would become of letters now: decoded and judged again with today's schemas and rules, nothing published."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np

from k2stream.deadletter.envelope import Letter
from k2stream.deadletter.trail import Outcome
from k2stream.decode.decoder import Decoder
from k2stream.records import Batch, LogBatch, TopicPartition
from k2stream.rows import NATIVE_IDS, key_columns
from k2stream.topics import TopicName
from k2stream.transport.batch_builder import build_log_batch
from k2stream.transport.sink import Outgoing
from k2stream.validate import INSTRUMENT_RULES, RULES_OF, Expected, Limits, broken_rules
from k2stream.verdict import Decoded

IsHeld = Callable[[str, Decoded], "np.ndarray[tuple[int], np.dtype[np.bool_]]"]
"""(topic, decoded rows) -> True for each row that the table holds already."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a letter would become."""

    outcome: Outcome
    reason: str | None = None
    text: str = ""


def rehearse(
    letters: Sequence[Letter],
    edits: Mapping[str, tuple[bytes | None, bytes | None]],
    decoders: Callable[[str], Decoder],
    limits: Limits,
    now_us: int,
    is_held: IsHeld,
) -> list[Verdict]:
    """One verdict a letter, in their order; `decoders` gives that of a data type. Raises RegistryUnavailable."""
    numbered = sorted(enumerate(letters), key=lambda pair: (pair[1].topic, pair[1].partition))
    verdicts: dict[int, Verdict] = {}
    for (topic, partition), group in groupby(numbered, key=lambda pair: (pair[1].topic, pair[1].partition)):
        pairs = [*group]
        batch = _batch(TopicPartition(topic, partition), [_record(letter, edits) for _, letter in pairs])
        found = _judge(topic, decoders(TopicName.parse(topic).data_type).decode(batch), limits, now_us, is_held)
        verdicts.update((number, found[place]) for place, (number, _) in enumerate(pairs))
    return [verdicts[number] for number in range(len(letters))]


def _record(letter: Letter, edits: Mapping[str, tuple[bytes | None, bytes | None]]) -> Outgoing:
    key, value = edits.get(letter.first_origin, (letter.key, letter.value))
    return Outgoing(key, value, max(0, letter.timestamp_ms), letter.headers)


def _batch(tp: TopicPartition, records: Sequence[Outgoing]) -> Batch:
    raw = build_log_batch(records, "none")
    return Batch(tp.topic, tp.partition, 0, len(records), (LogBatch.parse(tp.topic, tp.partition, raw),), len(raw))


def _judge(topic: str, decoded: Decoded, limits: Limits, now_us: int, is_held: IsHeld) -> dict[int, Verdict]:
    """By offset in the batch."""
    name = TopicName.parse(topic)
    found = {r.offset: Verdict(Outcome.DEAD, r.reason.value, r.text) for r in decoded.rejects}
    found |= {m.offset: Verdict(Outcome.MARKER) for m in decoded.markers}
    expected = Expected(name.venue.upper(), name.asset_class, now_us, limits)
    has_id = name.data_type in NATIVE_IDS
    rules = RULES_OF[key_columns(decoded.rows.column_names)[2]] if has_id else INSTRUMENT_RULES
    invalid = broken_rules(decoded.rows, rules, expected)
    found |= {i.offset: Verdict(Outcome.DEAD, i.reason.value, i.text) for i in invalid}
    offsets = decoded.rows["offset"].to_pylist()
    if not has_id:  # reference data: a row, or an older word than the table's
        return {offset: Verdict(Outcome.ROW) for offset in offsets} | found
    good = [row for row, offset in enumerate(offsets) if offset not in found]
    rows = replace(decoded, rows=decoded.rows.take(np.array(good, dtype=np.int64)))
    held = is_held(topic, rows) if good else np.zeros(0, dtype=bool)
    keys = set[tuple[object, ...]]()
    columns = [rows.rows[n].to_pylist() for n in key_columns(rows.rows.column_names)]
    for row, is_old, *key in zip(good, held.tolist(), *columns, strict=True):
        is_again = is_old or tuple(key) in keys
        keys.add(tuple(key))
        found[offsets[row]] = Verdict(Outcome.DUPLICATE if is_again else Outcome.ROW)
    return found
