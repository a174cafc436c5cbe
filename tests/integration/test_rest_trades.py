"""Trades asked back from a venue that misbehaves: every one that it has, within its limits, and what it has not is known."""

import json
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from k2stream.clock import SystemClock
from k2stream.dev.certificate import Certificate, make_certificate
from k2stream.errors import FeedError, FeedLost
from k2stream.feed import binance as binance_feed
from k2stream.feed.binance import read
from k2stream.feed.connection import tls_context
from k2stream.feed.frame import Row
from k2stream.feed.recording import shipped
from k2stream.feed.rest import binance, coinbase, kraken
from k2stream.feed.rest.client import RestClient, pages, rest_client
from k2stream.feed.rest.endpoint import Endpoint, Wanted
from k2stream.number_spans import Span, count, merged, of_numbers, within, without
from tests.integration.rest_site import Fault, RestVenue, answering, binance_trade

FIRST = 1_000
SYMBOLS = {"binance": "BTCUSDT", "coinbase": "BTC-USD", "kraken": "BTC/USD"}
ENDPOINTS = {"binance": binance.KEYED, "coinbase": coinbase.ENDPOINT, "kraken": kraken.ENDPOINT}
PATIENT = {"Retry-After": "1"}


def traded(venue: str, trades: int) -> list[Row]:
    """Trades of contiguous numbers, a millisecond apart, several at one time."""
    ends = {"symbol": SYMBOLS[venue], "price": Decimal("39432.48"), "quantity": Decimal("0.000263")}
    return [
        {**ends, "source_sequence": FIRST + n, "timestamp": 1_610_064_000_000_000 + n // 3 * 1000, "side": "BUY" if n % 2 else "SELL"} for n in range(trades)
    ]


def wanted(venue: RestVenue, name: str, first: int, last: int) -> Wanted:
    times = {row["source_sequence"]: row["timestamp"] for row in venue.traded[SYMBOLS[name]]}
    return Wanted(SYMBOLS[name], first, last, times[first - 1], times[last + 1])


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("rest"))


class Asking:
    """A client of one venue on loopback, and what its pages said."""

    def __init__(self, client: RestClient) -> None:
        self.client = client
        self.rows: list[Row] = []
        self.covered: list[Span] = []

    async def ask(self, what: Wanted) -> list[int]:
        """The wanted numbers that were given."""
        async for page in pages(self.client, what, new_id=str):
            self.rows += page.trades
            self.covered += [page.covers] if page.covers else []
        numbers = {row["source_sequence"] for row in self.rows}
        return sorted(n for n in numbers if what.first <= n <= what.last)

    def absent(self, what: Wanted) -> list[Span]:
        """The wanted numbers that the venue does not have."""
        return without(within(self.covered, what.first, what.last), of_numbers(row["source_sequence"] for row in self.rows))


async def asked(name: str, venue: RestVenue, first: int, last: int, certificate: Certificate, endpoint: Endpoint | None = None) -> tuple[list[int], list[Span]]:
    async with (
        answering(venue, certificate),
        rest_client(
            endpoint or ENDPOINTS[name],
            venue.url,
            tls=tls_context(ca_file=str(certificate.authority), verify=True),
            key="secret",
            clock=SystemClock(),
            first_pause_seconds=0.01,
        ) as client,
    ):
        client.bucket.per_second, client.bucket.at_once = 1000.0, 1000.0
        asking, what = Asking(client), wanted(venue, name, first, last)
        return await asking.ask(what), asking.absent(what)


def site(name: str, trades: int = 3_000, **faults: Any) -> RestVenue:
    return RestVenue({SYMBOLS[name]: traded(name, trades)}, key="secret", **faults)


@pytest.mark.parametrize("name", SYMBOLS)
async def test_a_gap_longer_than_a_page_is_asked_back_whole(name: str, certificate: Certificate) -> None:
    """Page after page, none beyond the gap."""
    venue = site(name)
    numbers, absent = await asked(name, venue, FIRST + 10, FIRST + 2_509, certificate)
    assert (numbers, absent) == (list(range(FIRST + 10, FIRST + 2_510)), [])
    assert len(venue.asked) == 3


@pytest.mark.parametrize("name", SYMBOLS)
@pytest.mark.parametrize("fault", ["busy", "banned", "down", "cut", "shuffled", "short"])
async def test_a_misbehaving_venue_is_asked_again_and_gives_all(name: str, fault: str, certificate: Certificate) -> None:
    """429, 418 and 503, a connection that breaks, trades in any order, pages of a few trades."""
    faults = {
        "busy": Fault(429, PATIENT, "{}"),
        "banned": Fault(418, PATIENT, "{}"),
        "down": Fault(503, {}, "<html>"),
        "cut": Fault(is_cut=True),
        "shuffled": Fault(is_shuffled=True),
        "short": Fault(trades=7),
    }
    venue, began = site(name, faults={0: faults[fault], 1: faults[fault]}), time.monotonic()
    numbers, absent = await asked(name, venue, FIRST + 10, FIRST + 1_200, certificate)
    assert (numbers, absent) == (list(range(FIRST + 10, FIRST + 1_201)), [])
    if fault in ("busy", "banned"):
        assert time.monotonic() - began >= 2.0, "as long as the venue said, both times"


@pytest.mark.parametrize("name", SYMBOLS)
async def test_what_the_venue_does_not_have_is_known_and_not_waited_for(name: str, certificate: Certificate) -> None:
    """It names the trades around; the others are given."""
    gone = {FIRST + 20, FIRST + 21, FIRST + 22, FIRST + 1_500}
    numbers, absent = await asked(name, site(name, absent=gone), FIRST + 10, FIRST + 1_999, certificate)
    assert absent == [(FIRST + 20, FIRST + 22), (FIRST + 1_500, FIRST + 1_500)]
    assert set(numbers) == set(range(FIRST + 10, FIRST + 2_000)) - gone


@pytest.mark.parametrize("name", SYMBOLS)
async def test_what_an_endpoint_that_lags_behind_the_stream_does_not_have_yet_is_not_absent(name: str, certificate: Certificate) -> None:
    """Its newest trade is older than the gap's end, so of what is newer it says nothing; noted as absent it would never be asked for again."""
    newest = FIRST + 1_499
    numbers, absent = await asked(name, site(name, absent=range(newest + 1, FIRST + 3_000)), FIRST + 10, FIRST + 1_999, certificate)
    assert (numbers, absent) == (list(range(FIRST + 10, newest + 1)), [])
    none, absent = await asked(name, site(name, absent=range(newest + 1, FIRST + 3_000)), newest + 1, newest + 3, certificate)
    assert (none, absent) == ([], [])


@pytest.mark.parametrize("name", SYMBOLS)
async def test_an_empty_answer_says_nothing(name: str, certificate: Certificate) -> None:
    """It is no proof that the trades do not exist: they are asked for another time."""
    numbers, absent = await asked(name, site(name, faults={0: Fault(trades=0)}), FIRST + 10, FIRST + 12, certificate)
    assert (numbers, absent) == ([], [])


@pytest.mark.parametrize("name", SYMBOLS)
@pytest.mark.parametrize("body", ["", "nothing", "[1]", '{"result":[]}', "[" * 50_000, '[{"id":1}]', '{"error":[],"result":{"X":[[1]],"last":"1"}}'])
async def test_garbage_is_an_error_that_names_the_venue_and_no_row(name: str, body: str, certificate: Certificate) -> None:
    """Never a trade that nobody made."""
    with pytest.raises(FeedError):
        await asked(name, site(name, faults={0: Fault(body=body or " ")}), FIRST + 10, FIRST + 12, certificate)


async def test_a_venue_that_stays_away_is_given_up_with_its_address(certificate: Certificate) -> None:
    """After a few tries; a later run asks again."""
    venue = site("coinbase", faults={n: Fault(500, {}, "{}") for n in range(20)})
    with pytest.raises(FeedLost, match=r"https://127.0.0.1:\d+ answers 500"):
        await asked("coinbase", venue, FIRST + 10, FIRST + 12, certificate)
    assert len(venue.asked) == 6


async def test_kraken_refuses_with_status_200(certificate: Certificate) -> None:
    """Its own words are told; too many requests are only waited for."""
    refused = site("kraken", faults={0: Fault(body='{"error":["EQuery:Unknown asset pair"]}')})
    with pytest.raises(FeedError, match="EQuery:Unknown asset pair"):
        await asked("kraken", refused, FIRST + 10, FIRST + 12, certificate)
    busy = site("kraken", faults={0: Fault(headers=PATIENT, body='{"error":["EGeneral:Too many requests"]}')})
    assert (await asked("kraken", busy, FIRST + 10, FIRST + 12, certificate))[0] == [FIRST + 10, FIRST + 11, FIRST + 12]


async def test_a_wrong_certificate_is_refused(tmp_path: Path, certificate: Certificate) -> None:
    """Nobody on the way may invent trades."""
    other = make_certificate(tmp_path / "other")
    venue = site("coinbase")
    async with (
        answering(venue, certificate),
        rest_client(
            coinbase.ENDPOINT,
            venue.url,
            tls=tls_context(ca_file=str(other.authority), verify=True),
            key="",
            clock=SystemClock(),
            first_pause_seconds=0.001,
        ) as client,
    ):
        with pytest.raises(FeedLost, match="certificate verify failed"):
            await Asking(client).ask(wanted(venue, "coinbase", FIRST + 10, FIRST + 12))
    assert venue.asked == []


async def test_without_a_key_binance_gives_the_newest_only(certificate: Certificate) -> None:
    """Of what is older nothing is said; with a wrong key its own words are told."""
    venue = site("binance", trades=1_500)
    numbers, absent = await asked("binance", venue, FIRST + 400, FIRST + 600, certificate, binance.KEYLESS)
    assert (numbers, absent) == (list(range(FIRST + 500, FIRST + 601)), [])
    venue.key = "another"
    with pytest.raises(FeedError, match="Invalid API-key"):
        await asked("binance", venue, FIRST + 10, FIRST + 12, certificate)


def test_a_trade_asked_back_is_the_trade_that_the_stream_would_have_brought() -> None:
    """In every column but those that tell of the way."""
    frames = shipped(binance_feed.RECORDED).splitlines()[:50]
    live = [trade for frame in frames for trade in read(frame, new_id=str, now_us=1).trades]
    body = json.dumps([binance_trade(row) for row in live]).encode()
    what = Wanted("BTCUSDT", live[0]["source_sequence"], live[-1]["source_sequence"], 0, 0)
    page = binance.read(body, binance.begin_by_number(what), what, new_id=str, now_us=1)
    assert list(page.trades) == live


def spans() -> Iterator[tuple[list[Span], list[Span]]]:
    from random import Random

    random = Random(3)
    for _ in range(300):
        one, other = ([(a, a + random.randrange(6)) for a in random.sample(range(60), random.randrange(8))] for _ in range(2))
        yield one, other


def test_spans_are_sets_of_numbers() -> None:
    """As plain sets say, on any two of them."""

    def plain(found: list[Span]) -> set[int]:
        return {n for first, last in found for n in range(first, last + 1)}

    for one, other in spans():
        assert plain(merged(one)) == plain(one)
        assert plain(without(one, other)) == plain(one) - plain(other)
        assert plain(within(one, 10, 40)) == {n for n in plain(one) if 10 <= n <= 40}
        assert count(one) == len(plain(one))
        assert of_numbers(plain(one)) == merged(one)
