"""CSV as people write it: every row with its line and its bytes, wherever quotes, blank lines and blocks end."""

import bz2
import csv
import gzip
import io
import lzma
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from k2stream.errors import LoadError
from k2stream.load.chunk import Chunk, Place
from k2stream.load.csv_file import CsvFile
from k2stream.load.mapping import FileForm

OPEN: list[CsvFile] = []

CELL = st.text('ab1,"\n é', max_size=6)


def opened(folder: Path, content: bytes, name: str = "f.csv", **form: object) -> CsvFile:
    path = folder / name
    path.write_bytes(content)
    OPEN.append(CsvFile(path, FileForm.model_validate(form)))
    return OPEN[-1]


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    while OPEN:
        OPEN.pop().close()


def rows_of(chunks: Iterator[Chunk]) -> dict[int, tuple[str, ...]]:
    """Row number in the file -> its texts."""
    found = {}
    for chunk in chunks:
        texts = zip(*(column.to_pylist() for column in chunk.columns.columns), strict=True)
        found.update({chunk.first_row + int(n): tuple(t.decode() for t in row) for n, row in zip(chunk.numbers, texts, strict=True)})
    return found


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("k2stream.load.csv_file.BLOCK_BYTES", 64)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(CELL, CELL, CELL), min_size=1, max_size=30), ends=st.sampled_from(["\n", "\r\n"]), is_quoted=st.booleans())
def test_rows_lines_and_bytes_are_those_of_the_file(tmp_path: Path, small_blocks: None, rows: list[tuple[str, str, str]], ends: str, is_quoted: bool) -> None:
    """Quotes, commas and line ends inside of values, in blocks of 64 bytes; each place can be gone on from."""
    text = io.StringIO()
    csv.writer(text, lineterminator=ends, quoting=csv.QUOTE_ALL if is_quoted else csv.QUOTE_MINIMAL).writerows([("x", "y", "z"), *rows])
    content = text.getvalue().encode()
    file = opened(tmp_path, content)
    chunks = list(file.chunks(Place()))
    assert rows_of(iter(chunks)) == dict(enumerate(rows))
    for chunk in chunks:
        for number, line in enumerate(chunk.lines):
            assert next(csv.reader(io.StringIO(chunk.raw(number).decode(), newline=""))) == list(rows[chunk.first_row + number])
            assert content.split(b"\n")[line - 1].startswith(chunk.raw(number).split(b"\n")[0].rstrip(b"\r"))
        later = rows_of(opened(tmp_path, content).chunks(chunk.after))
        assert later == {n: row for n, row in enumerate(rows) if n >= chunk.after.row}


def test_blank_lines_and_rows_with_too_few_columns_keep_their_lines(tmp_path: Path) -> None:
    """A blank line is no row; one without its columns is one, with what it lacks."""
    file = opened(tmp_path, b"\n\nx,y\n\n1,2\r\n\r\n3\n4,5,6\n7,8\n")
    (chunk,) = file.chunks(Place())
    assert chunk.lines.tolist() == [5, 7, 8, 9]
    assert rows_of(iter([chunk])) == {0: ("1", "2"), 3: ("7", "8")}
    assert [(m.number, m.text) for m in chunk.malformed] == [(1, "expected 2 columns, found 1"), (2, "expected 2 columns, found 3")]
    assert [chunk.raw(n) for n in range(4)] == [b"1,2", b"3", b"4,5,6", b"7,8"]


def test_a_row_that_is_no_text_and_lacks_columns_is_malformed_alone(tmp_path: Path) -> None:
    """Its neighbours are rows, whole or not."""
    file = opened(tmp_path, b"x,y\n1,2\n\xff\xfe\n3,\xff\n4,5,6\n7,8\n")
    (chunk,) = file.chunks(Place())
    assert [m.number for m in chunk.malformed] == [1, 3]
    assert chunk.numbers.tolist() == [0, 2, 4]
    assert chunk.columns["y"].to_pylist() == [b"2", b"\xff", b"8"]
    assert chunk.raw(1) == b"\xff\xfe"


def test_a_byte_order_mark_skipped_lines_and_other_delimiters(tmp_path: Path) -> None:
    """As spreadsheets write them."""
    file = opened(tmp_path, "\ufeffReport of today\nx;y\n1;ä\n".encode(), delimiter=";", skip_lines="1")
    assert file.column_names == ["x", "y"]
    assert rows_of(file.chunks(Place())) == {0: ("1", "ä")}
    latin = opened(tmp_path, "x\ty\n1\tä\n".encode("cp1252"), delimiter="tab", encoding="cp1252")
    assert rows_of(latin.chunks(Place())) == {0: ("1", "ä")}


@pytest.mark.parametrize("suffix", [".gz", ".xz", ".bz2", ".zst", ".zip"])
def test_a_packed_file_is_read_and_gone_on_with(tmp_path: Path, small_blocks: None, suffix: str) -> None:
    """From the middle too."""
    content = b"x,y\n" + b"".join(b"%d,%d\n" % (n, n * n) for n in range(200))
    packed = {".gz": gzip.compress, ".xz": lzma.compress, ".bz2": bz2.compress, ".zst": zstd, ".zip": zipped}[suffix](content)
    chunks = list(opened(tmp_path, packed, f"f.csv{suffix}").chunks(Place()))
    assert len(rows_of(iter(chunks))) == 200
    middle = chunks[len(chunks) // 2].after
    assert min(rows_of(opened(tmp_path, packed, f"f.csv{suffix}").chunks(middle))) == middle.row


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz", ".bz2", ".zst", ".zip"])
def test_a_file_whose_last_row_has_no_line_end_is_gone_on_with_at_its_end(tmp_path: Path, suffix: str) -> None:
    """What was read of it is all of it: one byte more, and a packed file would look shorter than before."""
    content = b"x,y\n1,2\n3,4"
    packed = {".gz": gzip.compress, ".xz": lzma.compress, ".bz2": bz2.compress, ".zst": zstd, ".zip": zipped, "": bytes}[suffix](content)
    *_, last = opened(tmp_path, packed, f"f.csv{suffix}").chunks(Place())
    assert (last.after.row, last.after.byte) == (2, len(content))
    assert list(opened(tmp_path, packed, f"f.csv{suffix}").chunks(last.after)) == []


def zstd(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    packed: bytes = sink.getvalue().to_pybytes()
    return packed


def zipped(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("f.csv", content)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "name", "says"),
    [
        (b"", "f.csv", "is empty: expected a header"),
        (b"x,y\r1,2\r", "f.csv", "carriage return alone"),
        ("x,y\n1,2\n".encode("utf-16"), "f.csv", "is UTF-16"),
        (b'x,y\n1,"2\n' + b"3,4\n" * 400_000, "f.csv", "a quoted value is not closed"),
        (b'x,y\n1,5" pipe\n3,5" pipe\n', "f.csv", "quotes or carriage returns in the middle of values"),
        (b"x,y\n1,2\r3,4\n5\n", "f.csv", "quotes or carriage returns in the middle of values"),
        (gzip.compress(b"x,y\n" + b"1,2\n" * 99_999)[:-200], "f.csv.gz", "cannot be read to its end"),
        (b"PK\x03\x04junk", "f.zip", "is no zip archive"),
    ],
)
def test_what_is_no_csv_is_one_sentence(tmp_path: Path, content: bytes, name: str, says: str) -> None:
    """Names the file, what is wrong with it and what to do."""
    with pytest.raises(LoadError, match=says):
        list(opened(tmp_path, content, name).chunks(Place()))


def test_quotes_that_are_characters_like_others(tmp_path: Path) -> None:
    """Inches, say; the mapping says so."""
    file = opened(tmp_path, b'x,y\n1,5" pipe\n2,plain\n', quote="none")
    assert rows_of(file.chunks(Place())) == {0: ("1", '5" pipe'), 1: ("2", "plain")}
