"""A source that changes its past is refused before its numbers go to other trades."""

from pathlib import Path
from uuid import UUID

import pytest

from k2stream.errors import FeedError
from k2stream.feed import asx
from k2stream.feed.guard import SessionGuard
from k2stream.feed.recorded import merged
from k2stream.feed.recording import MessageIds, Recording

MONDAY = ["03/10/2014,10:00:00.000,1.5,100,0,,", "03/10/2014,10:00:00.000,1.5,100,0,,", "03/10/2014,11:00:00.000,1.6,7,0,,"]
TUESDAY = ["03/11/2014,10:00:00.000,1.7,100,0,,"]


def recording(lines: list[str], symbol: str = "BHP", feed: int = 1) -> Recording:
    return asx.read_trades(symbol, "\r\n".join([*lines, ""]).encode(), ids=MessageIds(UUID(int=feed)), now_us=feed)


def test_the_same_recording_and_a_longer_one_are_let_in(tmp_path: Path) -> None:
    """A second load, a session that grew and a new session are fine; what was remembered survives the process."""
    path = tmp_path / "feed" / "sessions.json"
    SessionGuard(path).admit([recording(MONDAY[:2])])
    SessionGuard(path).admit([recording(MONDAY[:2], feed=2)])
    SessionGuard(path).admit([recording(MONDAY + TUESDAY)])
    SessionGuard(path).admit([merged([recording(MONDAY + TUESDAY), recording(TUESDAY, "RIO")])])
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("changed", [MONDAY[1:], MONDAY[:2], [MONDAY[0], MONDAY[2]], [*MONDAY[:2], MONDAY[2].replace("1.6", "1.61")]])
def test_a_session_that_begins_otherwise_is_refused_and_nothing_is_forgotten(tmp_path: Path, changed: list[str]) -> None:
    """A row dropped, added in front or corrected moves every later id to another trade: both hashes are named."""
    guard = SessionGuard(tmp_path / "sessions.json")
    guard.admit([recording(MONDAY)])
    with pytest.raises(FeedError, match=r"market.equities.trades.asx/BHP/2014-03-10: its first 3 rows .* hash [0-9a-f]{16}, and now have hash [0-9a-f]{16}"):
        guard.admit([recording(TUESDAY, "RIO"), recording(changed)])
    guard.admit([recording(MONDAY)])


def test_a_damaged_file_is_said_to_be_so(tmp_path: Path) -> None:
    """One sentence with the path and what to do, not a traceback."""
    path = tmp_path / "sessions.json"
    path.write_text("[1")
    with pytest.raises(FeedError, match="damaged"):
        SessionGuard(path).admit([recording(MONDAY)])
