"""Every reason that a dead letter can have, explained; docs/dead_letters.md shows the same, and a test keeps them equal."""

from collections.abc import Mapping
from typing import NamedTuple

from k2stream.verdict import Reason


class Explained(NamedTuple):
    """One reason, for a person."""

    says: str
    cause: str
    remedy: str


REASONS: Mapping[Reason, Explained] = {
    Reason.BAD_MAGIC: Explained(
        "The value does not begin with byte 0 and a schema id.",
        "A producer without Confluent framing, or one of other data, writes to the topic.",
        "Stop that producer; edit a letter with `--value-file` if its data is worth it.",
    ),
    Reason.UNKNOWN_SCHEMA: Explained(
        "The registry has no schema with the id that the value names.",
        "A producer registered with another registry, or the registry lost its data.",
        "Register the schema under that id, then replay; the replay agent does it by itself.",
    ),
    Reason.SCHEMA_INCOMPATIBLE: Explained(
        "The schema that the value names cannot be read as today's contract.",
        "A producer registered a schema that drops or retypes a field.",
        "Register a compatible schema and mend the producer (`k2 schemas check`), then edit the letter.",
    ),
    Reason.TRUNCATED: Explained(
        "The value ends before its schema does.",
        "A producer cut it, or wrote it with another schema than it names.",
        "Mend the producer and let it send again; nothing can be restored from the letter.",
    ),
    Reason.TRAILING_BYTES: Explained(
        "Bytes are left when every field of the schema has been read.",
        "A producer names an older schema than the one it wrote with.",
        "Register the right schema, or edit the letter with `--value-file`.",
    ),
    Reason.INVALID_UTF8: Explained(
        "A text is not UTF-8.",
        "A producer copied text of another encoding.",
        "Mend the producer; edit the letter with `--value-file`.",
    ),
    Reason.ENUM_OUT_OF_RANGE: Explained(
        "A field names a symbol that its enumeration does not have.",
        "A producer knows a newer enumeration than the schema that it names.",
        "Register the newer schema, or edit the letter.",
    ),
    Reason.DECIMAL_OUT_OF_RANGE: Explained(
        "A number has more digits than decimal(18, 8) holds.",
        "A price or quantity in the wrong unit.",
        "Mend the producer's unit; edit the letter with `--value-file`.",
    ),
    Reason.INVALID_DATE: Explained(
        "A text that should be a date is none.",
        "Reference data of version 1 whose dates are not MM/DD/YYYY, or name a day that no month has.",
        "Mend the producer and let it send again, or edit the letter with `--value-file`.",
    ),
    Reason.MALFORMED: Explained(
        "The value cannot be read as its schema says.",
        "Bytes were changed on their way, or a length is not what follows.",
        "Mend the producer and let it send again.",
    ),
    Reason.NO_VALUE: Explained(
        "The record has no value and is no marker.",
        "A tombstone in a topic that is not compacted.",
        "Find who deletes there; park the letter.",
    ),
    Reason.BAD_MARKER: Explained(
        "A marker lacks its symbol, kind or time, or a session start its session.",
        "A feed of another version.",
        "Mend the feed; park the letter, it stands for no row.",
    ),
    Reason.PRICE_MUST_BE_POSITIVE: Explained(
        "The price is zero or below.",
        "A cancelled trade, or a venue that says unknown by 0.",
        "Edit the letter if the price is known (`--set price=...`), else park it.",
    ),
    Reason.QUANTITY_MUST_BE_POSITIVE: Explained(
        "The quantity is zero or below.",
        "A cancelled trade, or a correction as a negative one.",
        "Edit the letter if the quantity is known, else park it.",
    ),
    Reason.SYMBOL_REQUIRED: Explained(
        "The symbol is empty.",
        "A feed that does not know an instrument.",
        "Edit the letter (`--set symbol=...`) and mend the feed.",
    ),
    Reason.TRADE_ID_REQUIRED: Explained(
        "The venue's own id of the trade is empty.",
        "A feed that drops it; without it two equal trades cannot be told apart.",
        "Mend the feed; edit the letter if the id is known.",
    ),
    Reason.MESSAGE_ID_REQUIRED: Explained(
        "The message id is empty.",
        "A producer other than k2stream's.",
        "Mend the producer; edit the letter (`--set message_id=...`).",
    ),
    Reason.QUOTE_ID_REQUIRED: Explained(
        "The quote's id is empty.",
        "A feed that drops it; without it two equal quotes cannot be told apart.",
        "Mend the feed; edit the letter if the id is known.",
    ),
    Reason.COMPANY_ID_REQUIRED: Explained(
        "The instrument's company id is empty.",
        "A reference file with an empty line or another column.",
        "Mend the file and publish it again.",
    ),
    Reason.PRICE_MUST_NOT_BE_NEGATIVE: Explained(
        "A bid or ask price is below zero.",
        "A venue's word for no quote, or a spread sent as a price.",
        "Edit the letter if the price is known, else park it.",
    ),
    Reason.QUANTITY_MUST_NOT_BE_NEGATIVE: Explained(
        "A bid or ask quantity is below zero.",
        "A change sent in place of an amount.",
        "Mend the feed; park the letter.",
    ),
    Reason.INVALID_SIDE: Explained(
        "The side is none of BUY, SELL, SELL_SHORT, UNKNOWN.",
        "A producer with words of its own.",
        "Edit the letter (`--set side=UNKNOWN`) and mend the producer.",
    ),
    Reason.INVALID_ASSET_CLASS: Explained(
        "The asset class is not the topic's.",
        "A record in the wrong topic.",
        "Send it to its own topic; park the letter.",
    ),
    Reason.INVALID_EXCHANGE: Explained(
        "The exchange is not the topic's.",
        "A record in the wrong topic.",
        "Send it to its own topic; park the letter.",
    ),
    Reason.TIMESTAMP_IN_FUTURE: Explained(
        "The event time lies further ahead than K2_MAX_AHEAD_MS allows.",
        "A wrong clock, or seconds taken for milliseconds.",
        "Mend the clock; replay once the time has come, or with a larger K2_MAX_AHEAD_MS.",
    ),
    Reason.TIMESTAMP_TOO_OLD: Explained(
        "The event time lies further back than K2_MAX_AGE_MS allows.",
        "History is loaded with a rule that is meant for live data.",
        "Set K2_MAX_AGE_MS to 0 or larger, then replay.",
    ),
}
