"""What a file says is read exactly or refused: no number is rounded, no date is moved, no zone is guessed."""

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal, InvalidOperation
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2stream.load import numbers, times

SYDNEY = "Australia/Sydney"
MICROSECOND = timedelta(microseconds=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


WRITTEN = st.one_of(st.from_regex(r"[+-]?[0-9]{0,12}(\.[0-9]{0,11})?", fullmatch=True), st.text("0123456789.,-eE+ xN", max_size=14))
FORMATS = ("%m/%d/%Y %H:%M:%S.%f", "%Y%m%d%H%M%S%f", "%d %b %y, %I:%M:%S.%f %p", "%Y-%m-%dT%H:%M:%S.%f")
NO_TIMES = (
    "2014-02-30 10:00:00Z",
    "2014-13-01Z",
    "2014-03-03T24:00:00Z",
    "2014-03-03T10:00:60Z",
    "2014-03-03T10:00:00",
    "2014-03-03T10:00:00+99:99",
    "2014-03-03T10:00:00+15",
    "2014-03-03T10:00:00-0160",
    "03/03/2014",
    "",
    "0000-01-01Z",
)


def at(year: int) -> datetime:
    return datetime(year, 1, 1, tzinfo=UTC).replace(tzinfo=None)


def micros(moment: datetime) -> int:
    return (moment - EPOCH) // MICROSECOND


def read_times(texts: list[str], **options: str) -> list[int | None]:
    read = times.written(pa.array(texts, pa.string()), form=options.get("form", ""), timezone=options.get("timezone", ""))
    return [None if bad else int(value) for value, bad in zip(read.values, read.bad, strict=True)]


def expected_decimal(text: str) -> Decimal | None:
    """What Python's exact decimals say: at most 10 digits and 8 decimals, nothing rounded."""
    try:
        value = Decimal(text)
    except InvalidOperation:
        return None
    if not value.is_finite() or abs(value) >= 10**10 or value != value.quantize(Decimal("1e-8")):
        return None
    return value


@settings(max_examples=150, deadline=None)
@given(st.lists(WRITTEN, min_size=1, max_size=20))
def test_a_decimal_is_exact_or_refused(texts: list[str]) -> None:
    """Good and bad ones in one column, as Python's own decimals read them; a bad one spoils no neighbour."""
    values, bad = numbers.decimals(pa.array(texts, pa.string()))
    found = [None if is_bad else value for value, is_bad in zip(values.to_pylist(), bad, strict=True)]
    for text, value in zip(texts, found, strict=True):
        if value is not None:
            assert value == expected_decimal(text)
        elif set(text) <= set("0123456789.-+"):
            assert expected_decimal(text) is None


@pytest.mark.parametrize(
    ("text", "decimal", "thousands", "expected"),
    [
        ("36,667", ",", "", "36.667"),
        ("1.234,5", ",", ".", "1234.5"),
        ("1.234", ",", ".", "1234"),
        ("1.234", ",", "", None),
        ("12.34,5", ",", ".", None),
        ("1,234,567.5", ".", ",", "1234567.5"),
        ("1,5", ".", ",", None),
        ("1,5", ".", "", None),
        ("1'000", ".", "'", "1000"),
        ("1 000,25", ",", " ", "1000.25"),
        ("1234,5", ",", ".", "1234.5"),
        ("0.123456789", ".", "", None),
        ("0.1234567800", ".", "", "0.12345678"),
        ("1e-8", ".", "", "0.00000001"),
        ("NaN", ".", "", None),
    ],
)
def test_a_comma_is_what_the_mapping_says(text: str, decimal: str, thousands: str, expected: str | None) -> None:
    """A thousand is never read as one, nor one as a thousand."""
    values, bad = numbers.decimals(pa.array([text]), decimal=decimal, thousands=thousands)
    assert (None if bad[0] else values[0].as_py()) == (None if expected is None else Decimal(expected))


@settings(max_examples=100, deadline=None)
@given(st.datetimes(at(1900), at(2200)), st.sampled_from(FORMATS))
def test_a_format_reads_what_strftime_wrote(moment: datetime, form: str) -> None:
    """To the microsecond; a year of two digits as POSIX has it."""
    text = moment.strftime(form)
    meant = datetime.strptime(text, form).replace(tzinfo=UTC)
    assert read_times([text], form=form, timezone="UTC") == [micros(meant)]


@settings(max_examples=100, deadline=None)
@given(st.datetimes(at(1971), at(2037)).map(lambda d: d.replace(microsecond=d.microsecond // 1000 * 1000)))
def test_local_times_are_those_of_the_zone(local: datetime) -> None:
    """As zoneinfo has them; the first of an hour that comes twice, and none of one that a clock skipped."""
    aware = local.replace(tzinfo=ZoneInfo(SYDNEY))
    exists = aware.astimezone(UTC).astimezone(ZoneInfo(SYDNEY)).replace(tzinfo=None) == local
    assert read_times([local.isoformat()], timezone=SYDNEY) == [micros(aware.astimezone(UTC)) if exists else None]


def test_a_whole_second_needs_no_fraction() -> None:
    """Vendors leave it out; a point without digits is no time."""
    form = "%m/%d/%Y %H:%M:%S.%f"
    assert read_times(["03/10/2014 10:00:01", "03/10/2014 10:00:01.5", "03/10/2014 10:00:01."], form=form, timezone="UTC") == [
        micros(datetime(2014, 3, 10, 10, 0, 1, tzinfo=UTC)),
        micros(datetime(2014, 3, 10, 10, 0, 1, 500_000, tzinfo=UTC)),
        None,
    ]


def test_hours_that_come_twice_or_never() -> None:
    """The two nights of the year, and a time that names its zone itself."""
    assert read_times(["2014-04-06 02:30:00"], timezone=SYDNEY) == [micros(datetime(2014, 4, 5, 15, 30, tzinfo=UTC))]
    assert read_times(["2014-10-05 02:30:00"], timezone=SYDNEY) == [None]
    assert read_times(["2014-10-05 02:30:00+10:00"], timezone=SYDNEY) == [micros(datetime(2014, 10, 5, 2, 30, tzinfo=timezone(timedelta(hours=10))))]


@pytest.mark.parametrize("text", NO_TIMES)
def test_a_time_that_no_calendar_or_clock_has_is_none(text: str) -> None:
    """Nor one without a zone, if the mapping names none: 30 February is not 2 March."""
    assert read_times([text, "2014-03-03T10:00:00Z"]) == [None, micros(datetime(2014, 3, 3, 10, tzinfo=UTC))]


@pytest.mark.parametrize(
    ("text", "unit", "expected"),
    [
        ("1610064000", "s", 1610064000_000000),
        ("1610064000.123456", "s", 1610064000_123456),
        ("1610064000278", "ms", 1610064000_278000),
        ("1610064000278.5", "ms", 1610064000_278500),
        ("1610064000278123", "us", 1610064000_278123),
        ("1610064000278123999", "ns", 1610064000_278123),
        ("-1", "s", -1_000000),
        ("1e3", "s", 1000_000000),
        ("12:00", "s", None),
        ("99999999999999999999", "s", None),
    ],
)
def test_a_count_since_1970_is_exact(text: str, unit: str, expected: int | None) -> None:
    """What is finer than a microsecond is cut off; what is no number is none."""
    read = times.counted(pa.array([text]), unit=unit)
    assert (None if read.bad[0] else int(read.values[0])) == expected


def test_one_bad_value_in_a_large_column_is_found_alone() -> None:
    """Where it stands, and every other value is read."""
    texts = [str(n) for n in range(50_000)]
    texts[31_337] = "x"
    values, bad = numbers.whole(pa.array(texts))
    assert np.flatnonzero(bad).tolist() == [31_337]
    assert values.null_count == 1
