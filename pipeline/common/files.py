"""Reading and writing text files: plain, gzip and zstd, one line at a time, whole or not at all.

Lines end in "\\n" and in nothing else: U+2028, U+0085 or a lone carriage return are text, so that the two sides of a
corpus cannot come apart on them.
"""

import codecs
import contextlib
import gzip
import hashlib
import io
import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import zstandard

from pipeline.common.errors import UserError

ZSTD_LEVEL = 3
_CHUNK = 1 << 17
_BLOCK = 1 << 16
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_GZIP_MAGIC = b"\x1f\x8b"


class _ZstdFile(io.RawIOBase):
    """Decompressed bytes of a zstd file of any number of frames.

    Raises UserError on a damaged or truncated file (the library's own stream reader ends silently on a truncated one).
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("rb")
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=1 << 31)
        self._frame: Any = None
        self._input = b""
        self._output = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._output:
            if not self._input:
                self._input = self._file.read(_CHUNK)
            if not self._input:
                if self._frame is not None:
                    raise UserError(f"{self._path} is cut short: its last zstd frame is not complete")
                return 0
            if self._frame is None:
                self._frame = self._decompressor.decompressobj()
            try:
                self._output = memoryview(self._frame.decompress(self._input))
            except zstandard.ZstdError as error:
                raise UserError(f"{self._path} is not a sound zstd file: {error}") from error
            self._input = b""
            if self._frame.eof:
                self._input = self._frame.unused_data
                self._frame = None
        size = min(len(buffer), len(self._output))
        buffer[:size] = self._output[:size]
        self._output = self._output[size:]
        return size

    def close(self) -> None:
        self._file.close()
        super().close()


def open_binary(path: str | Path) -> BinaryIO | gzip.GzipFile | io.BufferedReader:
    """Open a plain, gzip or zstd file for reading, told apart by its first bytes.

    Raises UserError when it is absent or a folder.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist") from error
    except IsADirectoryError as error:
        raise UserError(f"{path} is a folder, not a file") from error
    if magic == _ZSTD_MAGIC:
        return io.BufferedReader(_ZstdFile(path), _CHUNK)
    if path.suffix == ".zst":
        raise UserError(f"{path} is not a sound zstd file: it does not begin with zstd's magic number")
    if magic[:2] == _GZIP_MAGIC:
        return gzip.open(path, "rb")
    return path.open("rb")


def read_lines(path: str | Path) -> Iterator[str]:
    """Yield the lines of a UTF-8 text file (plain, gz, zst) without their line ends. A carriage return before the line
    end is dropped with it.

    Raises UserError on a missing, damaged or truncated file, and on bytes that are not UTF-8 (with the line number).
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    begun: list[str] = []  # parts of a line that goes on in the next block
    number, returns = 0, False
    with open_binary(path) as file:
        try:
            # Blocks are split as a whole: a loop over lines takes several times as long.
            while block := file.read(_BLOCK):
                first, *lines = decoder.decode(block).split("\n")
                begun.append(first)
                returns = returns or b"\r" in block
                if lines:
                    last = lines.pop()
                    lines.insert(0, "".join(begun))
                    begun = [last]
                    number += len(lines)
                    yield from map(_without_carriage_return, lines) if returns else lines
                    returns = "\r" in last
            begun.append(decoder.decode(b"", final=True))
            if last := "".join(begun):
                yield _without_carriage_return(last)
        except UnicodeDecodeError as error:
            number += 1 + error.object[: error.start].count(b"\n")
            raise UserError(f"{path} is not UTF-8 text near line {number}: {error.reason}") from error
        except (zlib.error, gzip.BadGzipFile, EOFError) as error:
            raise UserError(f"{path} is not a sound gzip file: {error}") from error


def _without_carriage_return(line: str) -> str:
    return line.removesuffix("\r")


def count_lines(path: str | Path) -> int:
    """Number of lines of a text file (plain, gz, zst); a last line without its line end counts."""
    lines, last = 0, b"\n"
    with open_binary(path) as file:
        try:
            while chunk := file.read(1 << 20):
                lines += chunk.count(b"\n")
                last = chunk
        except (zlib.error, gzip.BadGzipFile, EOFError) as error:
            raise UserError(f"{path} is not a sound gzip file: {error}") from error
    return lines + (not last.endswith(b"\n"))


class LineWriter:
    """Writes lines to a file under a temporary name; compressed when the name ends in .zst or .gz.

    `finish` makes the file whole, `discard` removes it. Most callers want `write_lines` below.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        self._file = self._temporary.open("wb")
        self._compressed: Any = self._file
        if self.path.suffix == ".zst":
            compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL, write_checksum=True)
            self._compressed = compressor.stream_writer(self._file, closefd=False)
        elif self.path.suffix == ".gz":
            self._compressed = gzip.GzipFile(fileobj=self._file, mode="wb", mtime=0)
        self._buffered = io.BufferedWriter(self._compressed, _CHUNK)
        self.lines = 0

    def write(self, line: str) -> None:
        """Write one line. Raises UserError when the text holds a line end of its own."""
        if "\n" in line:
            raise UserError(f"{self.path}: a line to write holds a line end: {line[:80]!r}")
        self._buffered.write(line.encode("utf-8", "strict"))
        self._buffered.write(b"\n")
        self.lines += 1

    def close(self) -> None:
        """Flush everything to the temporary file; `rename` then gives it its name."""
        self._buffered.flush()
        if self._compressed is not self._file:
            self._compressed.close()
        self._file.close()

    def rename(self) -> None:
        self._temporary.replace(self.path)

    def discard(self) -> None:
        with contextlib.suppress(Exception):
            self._file.close()
        self._temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def write_lines(path: str | Path) -> Iterator[LineWriter]:
    """A LineWriter whose file gets its name when the block ends well, and disappears when it does not."""
    writer = LineWriter(path)
    try:
        yield writer
        writer.close()
        writer.rename()
    except BaseException:
        writer.discard()
        raise


def write_json(path: str | Path, value: Any) -> None:
    """Write a value as indented JSON, under a temporary name first."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    temporary.replace(path)


def read_json(path: str | Path) -> Any:
    """The value of a JSON file. Raises UserError when it is absent or not JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist") from error
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}") from error


def sha256(path: Path) -> str:
    """Hexadecimal digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
