"""Dead letters in words: the story of one, and what would become of many."""

from collections import Counter
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from k2stream.deadletter.edit import newest
from k2stream.deadletter.envelope import Letter
from k2stream.deadletter.reasons import REASONS
from k2stream.deadletter.rehearsal import Verdict, rehearse
from k2stream.deadletter.replay import open_ones
from k2stream.deadletter.standing import DeadLetters
from k2stream.deadletter.trail import Act, Outcome
from k2stream.decode.decoder import Decoder
from k2stream.decode.registry import open_registry
from k2stream.query.letters import Selection
from k2stream.query.seen import TableSeen
from k2stream.rows import SCHEMA_OF_DATA_TYPE, key_columns
from k2stream.validate import Limits
from k2stream.verdict import Decoded

AT_ONCE = 2_000
SHOWN_BYTES = 256


def story(letters: DeadLetters, record: str) -> Iterator[str]:
    """Everything that is known of one record; raises QueryError if it has no letter."""
    letter = newest(letters, record)
    line = letters.chosen(Selection(origins=[record]))
    assert line is not None
    stands, known = line.to_pylist()[0], REASONS[letter.reason]
    yield f"{record}: {stands['state']}, attempt {letter.attempt}, first seen {stands['first_seen']:%Y-%m-%d %H:%M:%S} UTC"
    yield f"reason    {letter.reason.value}: {letter.text}"
    yield f"          {known.says} Usually: {known.cause} Do: {known.remedy}"
    yield f"origin    {letter.origin}" + (f", schema {letter.schema_id}" if letter.schema_id is not None else "")
    yield f"key       {letter.key!r}"
    yield from (f"header    {name}: {value!r}" for name, value in letter.headers)
    yield f"value     {_shown(letter.value)}"
    trail = letters.trail()
    mine = [row for row in trail.to_pylist() if row["first_origin"] == record]
    yield from (f"{row['written_at']:%Y-%m-%d %H:%M:%S}  {row['who']}: {_act(row)}" for row in mine)


def _act(row: dict[str, object]) -> str:
    match row["act"]:
        case Act.PUBLISHED:
            return f"published as {row['topic']}/{row['partition']}/{row['offset']} (attempt {row['attempt']})"
        case Act.OUTCOME:
            return f"it became {row['outcome']}" + (f", {row['reason']}" if row["reason"] else "")
        case act:
            return str(act) + (f": {row['note']}" if row["note"] else "")


def _shown(value: bytes | None) -> str:
    if value is None:
        return "none"
    more = f" and {len(value) - SHOWN_BYTES:,} bytes more; `k2 dlq export` gives them all" if len(value) > SHOWN_BYTES else ""
    return f"{len(value):,} bytes: {value[:SHOWN_BYTES].hex(' ', 4)}{more}"


def rehearsal_lines(letters: DeadLetters, selection: Selection) -> Iterator[str]:
    """What would become of the open letters of a selection, counted, with an example of each; publishes nothing."""
    counts, examples = Counter[tuple[Outcome, str]](), dict[tuple[Outcome, str], str]()
    for letter, verdict in rehearsed(letters, selection):
        what = (verdict.outcome, verdict.reason or "")
        counts[what] += 1
        examples.setdefault(what, f"{letter.first_origin}" + (f": {verdict.text}" if verdict.text else ""))
    yield f"{counts.total():,} open letters; a replay would make of them:" if counts else "No open letter is chosen."
    for (outcome, reason), count in counts.most_common():
        yield f"  {count:,} {outcome.value} {reason}".rstrip() + f", as {examples[outcome, reason]}"
    if counts:
        yield "Nothing was published. Add --publish to do so."


def rehearsed(letters: DeadLetters, selection: Selection) -> Iterator[tuple[Letter, Verdict]]:
    """Each open letter of a selection with what would become of it now; blocks."""
    found = letters.chosen(open_ones(selection))
    origins = [] if found is None else found["origin"].to_pylist()
    edits, decoders, registry = letters.edits(), dict[str, Decoder](), open_registry(letters.settings)

    def decoder_of(data_type: str) -> Decoder:
        if data_type not in decoders:
            columns = letters.columns_of(data_type)
            decoders[data_type] = Decoder(SCHEMA_OF_DATA_TYPE[data_type], registry, held=lambda: columns)
        return decoders[data_type]

    limits = Limits(max_ahead_us=letters.settings.max_ahead_ms * 1000, max_age_us=letters.settings.max_age_ms * 1000)
    for start in range(0, len(origins), AT_ONCE):
        whole = letters.whole(origins[start : start + AT_ONCE])
        verdicts = rehearse(whole, edits, decoder_of, limits, letters.clock.now_us(), lambda topic, rows: _held(letters, topic, rows))
        yield from zip(whole, verdicts, strict=True)


def _held(letters: DeadLetters, topic: str, decoded: Decoded) -> NDArray[np.bool_]:
    source = letters.source_of(topic)
    if source is None or source[0].snapshot_id is None:
        return np.zeros(decoded.rows.num_rows, dtype=bool)
    columns = [*key_columns(decoded.rows.column_names), "timestamp"]
    seen = TableSeen(lambda _: source[1], letters.settings.dedup_tolerance_ms * 1000, native_id=columns[2], engine=letters.engine)
    exchange, symbol, native_id, time = (decoded.rows[name].combine_chunks() for name in columns)
    return seen(exchange, symbol, native_id, time, source[0].snapshot_id)
