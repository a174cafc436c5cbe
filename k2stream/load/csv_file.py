"""CSV in chunks that end where a row ends: each row keeps its line and its bytes, whatever quotes and blank lines stand between."""

import bz2
import codecs
import csv
import gzip
import io
import lzma
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, cast

import numpy as np
import pyarrow as pa
import pyarrow.csv
from numpy.typing import NDArray

from k2stream.errors import LoadError
from k2stream.load.chunk import Chunk, Malformed, Place
from k2stream.load.mapping import FileForm

BLOCK_BYTES = 2 << 20
"""Read at once; some 30,000 trades."""
ROW_BYTES = 1 << 20
"""A row longer than this is a quote that was never closed."""
NEWLINE, RETURN = 10, 13
MARKS = (b"\xff\xfe", b"\xfe\xff")
MEND = "Mend the file, or write `file: {quote: none}` into the mapping if quotes in it are characters like others."


UNREADABLE = "k2stream.unreadable"
"""Codec error handler: what an encoding lacks becomes a byte that is no UTF-8 wherever it stands, so that its value is refused and not published."""


def _unreadable(exc: UnicodeError) -> tuple[str, int]:
    if not isinstance(exc, UnicodeDecodeError):
        raise exc
    return "\udcff", exc.end


codecs.register_error(UNREADABLE, _unreadable)


def open_bytes(path: Path) -> tuple[IO[bytes], IO[bytes]]:
    """The unpacked bytes of a file, and the file as it lies on disk; raises LoadError."""
    try:
        packed = path.open("rb")
    except OSError as exc:
        raise LoadError(f"{path} cannot be read ({exc.strerror}). Name a file that exists and may be read.") from exc
    try:
        return _unpacked(path, packed), packed
    except LoadError:
        packed.close()
        raise


def _unpacked(path: Path, packed: IO[bytes]) -> IO[bytes]:
    match path.suffix.lower():
        case ".gz":
            return cast(IO[bytes], gzip.GzipFile(fileobj=packed))
        case ".xz":
            return lzma.open(packed)
        case ".bz2":
            return bz2.open(packed)
        case ".zst" | ".lz4":
            codec = {".zst": "zstd", ".lz4": "lz4"}[path.suffix.lower()]
            return cast(IO[bytes], pa.CompressedInputStream(pa.PythonFile(packed, "r"), codec))
        case ".zip":
            return _only_member(path, packed)
    return packed


def _only_member(path: Path, packed: IO[bytes]) -> IO[bytes]:
    try:
        archive = zipfile.ZipFile(packed)
        names = [name for name in archive.namelist() if not name.endswith("/")]
        if len(names) != 1:
            raise LoadError(f"{path}: expected one file in the archive, found {len(names)}. Unpack it and load each by itself.")
        return archive.open(names[0])
    except zipfile.BadZipFile as exc:
        raise LoadError(f"{path} is no zip archive ({exc}). Fetch it again.") from exc


class CsvFile:
    """One CSV file, read forwards."""

    def __init__(self, path: Path, form: FileForm, *, wanted: Sequence[str] | None = None) -> None:
        """`wanted` columns are read, all without; raises LoadError for a file without rows, or without a header that can be read."""
        self._path, self._form = path, form
        self._file, self._packed = open_bytes(path)
        self._quote = form.quote.encode() or None
        self._rest, self._wanted = b"", wanted
        self._added_bytes = 0
        try:
            self._begin = self._skip_head()
        except LoadError:
            self.close()
            raise

    @property
    def column_names(self) -> list[str]:
        return self._names

    @property
    def size(self) -> int:
        return self._path.stat().st_size

    def done(self) -> int:
        return self._packed.tell()

    def close(self) -> None:
        self._file.close()
        self._packed.close()

    def chunks(self, place: Place) -> Iterator[Chunk]:
        """Raises LoadError for a file that cannot be read to its end."""
        if place.byte < self._begin.byte:
            place = self._begin
        self._go_to(place.byte)
        while (block := self._block()) is not None:
            place, chunk = self._chunk(place, *block)
            if chunk is not None:
                yield chunk

    # --- bytes ------------------------------------------------------------------------------------------------

    def _read(self, size: int) -> bytes:
        try:
            return self._file.read(size)
        except (OSError, EOFError, lzma.LZMAError, zipfile.BadZipFile, pa.ArrowInvalid) as exc:
            raise LoadError(f"{self._path} cannot be read to its end ({exc}). Fetch it again; what was loaded stays, and the next run goes on.") from exc

    def _skip_head(self) -> Place:
        """Lines that are skipped, and the header."""
        head = self._read(BLOCK_BYTES)
        if head.startswith(MARKS):
            raise LoadError(f"{self._path} is UTF-16. Convert it first: iconv -f utf-16 -t utf-8.")
        at = 3 if head.startswith(b"\xef\xbb\xbf") else 0
        line = 1
        for _ in range(self._form.skip_lines):
            at, line = self._after_line(head, at), line + 1
        if self._form.header:
            while head[at : at + 2] in (b"\r\n",) or head[at : at + 1] == b"\n":
                at, line = self._after_line(head, at), line + 1
            end = self._after_line(head, at)
            self._names, line, at = self._header(head[at:end]), line + 1, end
        else:
            self._names = list(self._form.columns)
        self._rest = head[at:]
        return Place(0, line, at)

    def _after_line(self, head: bytes, at: int) -> int:
        end = head.find(b"\n", at)
        if end < 0 and b"\r" in head[at:]:
            raise LoadError(f"{self._path} ends its lines with a carriage return alone. Convert it first: tr '\\r' '\\n'.")
        return len(head) if end < 0 else end + 1

    def _header(self, line: bytes) -> list[str]:
        if not line.strip():
            raise LoadError(f"{self._path} is empty: expected a header. Write `file: {{header: no, columns: [...]}}` into the mapping if it has none.")
        text = line.decode(self._form.encoding, "replace").rstrip("\r\n")
        quoting = {"quotechar": self._form.quote} if self._form.quote else {"quoting": csv.QUOTE_NONE}
        try:
            return [name.strip() for name in next(csv.reader([text], delimiter=self._form.delimiter, **quoting))]
        except csv.Error as exc:
            raise LoadError(f"{self._path}: its header cannot be read ({exc}). {MEND}") from exc

    def _go_to(self, byte: int) -> None:
        if byte == self._begin.byte:
            return
        self.close()
        self._file, self._packed = open_bytes(self._path)
        self._rest = b""
        if self._file is self._packed:
            self._file.seek(byte)
            return
        while byte:  # packed: there is no other way to get there
            passed = self._read(min(byte, BLOCK_BYTES))
            if not passed:
                raise LoadError(f"{self._path} is shorter than when it was loaded last. Was it changed? `--again` loads it from its first row.")
            byte -= len(passed)

    def _block(self) -> tuple[bytes, NDArray[np.int64], NDArray[np.int64]] | None:
        """Whole rows, where each ends, and all line ends; None at the end of the file."""
        data, is_end, self._added_bytes = self._rest, False, 0
        while True:
            newlines, ends = self._ends(data)
            if len(ends):
                cut = int(ends[-1]) + 1
                self._rest = data[cut:]
                return data[:cut], newlines[newlines < cut], ends
            if is_end or len(data) > BLOCK_BYTES + ROW_BYTES:
                self._never_closed()
            more = self._read(BLOCK_BYTES)
            is_end = not more
            if is_end and not data:
                return None
            data += more or b"\n"  # the last row needs no line end
            self._added_bytes = int(is_end)

    def _never_closed(self) -> None:
        raise LoadError(f"{self._path}: a quoted value is not closed, or a row is longer than {ROW_BYTES:,} bytes. {MEND}")

    def _ends(self, data: bytes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Line ends, and those of them that end a row: outside of quotes."""
        characters = np.frombuffer(data, np.uint8)
        newlines = np.flatnonzero(characters == NEWLINE)
        if self._quote is None or self._quote not in data:
            return newlines, newlines
        quotes = np.flatnonzero(characters == self._quote[0])
        return newlines, newlines[np.searchsorted(quotes, newlines) % 2 == 0]

    # --- rows -------------------------------------------------------------------------------------------------

    def _chunk(self, place: Place, data: bytes, newlines: NDArray[np.int64], ends: NDArray[np.int64]) -> tuple[Place, Chunk | None]:
        begins = np.concatenate([[0], ends[:-1] + 1])
        lines = place.line + np.searchsorted(newlines, begins)
        characters = np.frombuffer(data, np.uint8)
        blank = (begins == ends) | ((ends - begins == 1) & (characters[begins] == RETURN))
        begins, ends, lines = begins[~blank], ends[~blank], lines[~blank]
        after = Place(place.row + len(begins), place.line + len(newlines), place.byte + len(data) - self._added_bytes)
        if not len(begins):
            return after, None
        columns, malformed = self._rows(data, begins, ends, lines)
        numbers = np.setdiff1d(np.arange(len(begins)), np.array([m.number for m in malformed], np.int64))
        return after, Chunk(columns, numbers, malformed, place.row, lines, _raw_of(data, begins, ends), after)

    def _rows(self, data: bytes, begins: NDArray[np.int64], ends: NDArray[np.int64], lines: NDArray[np.int64]) -> tuple[pa.Table, tuple[Malformed, ...]]:
        """Rows with their columns, and those without; raises LoadError if the parser sees other rows than we do."""
        known = self._as_utf8(data)
        try:
            if _is_text(known):
                columns, malformed = self._parsed(known)
            else:  # Arrow cannot say which row has other columns if that row is no text
                _, malformed = self._parsed(known.decode("latin-1").encode())
                without = {m.number for m in malformed}
                whole = b"".join(data[b : e + 1] for n, (b, e) in enumerate(zip(begins, ends, strict=True)) if n not in without)
                columns, _ = self._parsed(self._as_utf8(whole), is_whole=True)
        except pa.ArrowInvalid as exc:
            raise LoadError(f"{self._path}: lines {lines[0]:,} to {lines[-1]:,} cannot be read as CSV ({exc}). {MEND}") from exc
        has_quotes = self._quote is not None and self._quote in data
        is_torn = not has_quotes and data.count(b"\r") != data.count(b"\r\n")  # a return alone ends a row for Arrow
        if is_torn or columns.num_rows + len(malformed) != len(begins) or any(m.number >= len(begins) for m in malformed):
            raise LoadError(
                f"{self._path}: lines {lines[0]:,} to {lines[-1]:,} hold quotes or carriage returns in the middle of values, so where rows end cannot "
                f"be told. {MEND}"
            )
        return columns, malformed

    def _as_utf8(self, data: bytes) -> bytes:
        """Bytes that are no text in the file's encoding are no UTF-8 either."""
        if self._form.encoding.lower() in ("utf-8", "utf8"):
            return data
        return data.decode(self._form.encoding, UNREADABLE).encode(errors="surrogateescape")

    def _parsed(self, data: bytes, *, is_whole: bool = False) -> tuple[pa.Table, tuple[Malformed, ...]]:
        malformed: list[Malformed] = []

        def refuse(row: pa.csv.InvalidRow) -> str:
            malformed.append(Malformed(row.number - 1, f"expected {row.expected_columns} columns, found {row.actual_columns}"))
            return "skip"

        wanted = self._names if self._wanted is None else list(self._wanted)
        if not data:
            return pa.table({name: pa.array([], pa.binary()) for name in wanted}), ()
        columns = pa.csv.read_csv(
            io.BytesIO(data),
            # Row numbers are told only where one thread reads; a block as large as the data keeps it in one piece.
            read_options=pa.csv.ReadOptions(column_names=self._names, use_threads=False, block_size=len(data) + 1),
            parse_options=pa.csv.ParseOptions(
                delimiter=self._form.delimiter, quote_char=self._form.quote or False, newlines_in_values=True, invalid_row_handler=None if is_whole else refuse
            ),
            convert_options=pa.csv.ConvertOptions(
                column_types=dict.fromkeys(wanted, pa.binary()), include_columns=wanted, strings_can_be_null=False, quoted_strings_can_be_null=False
            ),
        )
        return columns.combine_chunks(), tuple(malformed)


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _raw_of(data: bytes, begins: NDArray[np.int64], ends: NDArray[np.int64]) -> Callable[[int], bytes]:
    return lambda number: data[begins[number] : ends[number]].removesuffix(b"\r")
