"""What a command writes: whole or not at all, and never because standard output failed.

A result file is written under a name of its own in its folder, reaches the disk, and then takes its
name. A folder of results is replaced as one unit (`ResultFolder`).
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import fcntl
import json
import math
import os
import secrets
import shutil
import stat
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from rich.markup import escape

from sae_oracle import __version__

READER_WAIT = 60.0
"""Seconds that a FIFO may be without a reader, once there is something to read."""

TEMPORARY = ".sae-oracle-train-"
"""How the name of a folder begins in which a training is under way."""

READY = ".sae-oracle-ready"
"""The folder of a result that is whole, and on its way to its place."""


def plain(text: object) -> str:
    r"""Return text that a terminal shows and does not obey, on one line.

    >>> plain("a\x1b[31m\nb")
    'a\\x1b[31m\\nb'
    """
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in str(text)
    )


def visible(text: object, *, lines: bool = False) -> str:
    r"""Return text of anybody's for Rich to print as it is.

    Args:
        text: The text.
        lines: Whether it may have several lines.

    >>> visible("[/x]"), visible("a\nb"), visible("a\nb", lines=True)
    ('\\[/x]', 'a\\nb', 'a\nb')
    """
    parts = str(text).split("\n") if lines else [str(text)]
    return escape("\n".join(map(plain, parts)))


def first_line(error: BaseException, limit: int = 300) -> str:
    """Return what an exception says, on one line.

    >>> first_line(FileNotFoundError(2, "No such file or directory", "x.npy"))
    'No such file or directory'
    """
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    line = plain((text.strip() or type(error).__name__).splitlines()[0])
    return line if len(line) <= limit else line[:limit] + "…"


_IN_ASCII = {
    "ρ̂": "rho_hat", "ρ": "rho", "β": "beta", "λ": "lambda", "ε": "epsilon", "Σ": "sum ", "σ": "s",
    "−": "-", "–": "-", "—": "-", "×": "x", "·": "*", "≤": "<=", "≥": ">=", "→": "->", "½": "1/2",
    "‖": "||", "²": "^2", "§": "section ", "…": "...", "’": "'", "“": '"', "”": '"', "ᵀ": "^T",
    "∘": "o", "′": "'",
}  # fmt: skip
"""What stands for a letter where an encoding does not have it."""


def spelled(text: str) -> str:
    """Return text in ASCII, its Greek written out.

    >>> spelled("ρ̂ ≤ ½")
    'rho_hat <= 1/2'
    """
    for letter, words in _IN_ASCII.items():
        text = text.replace(letter, words)
    return text.encode("ascii", "replace").decode("ascii")


def _written_out(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    return spelled(error.object[error.start : error.end]), error.end


codecs.register_error("sae-oracle", _written_out)


class _Sound:
    """A standard stream that drops what cannot be written, and spells what it has no letter for."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        with contextlib.suppress(AttributeError, OSError, ValueError):
            stream.reconfigure(errors="sae-oracle")  # type: ignore[attr-defined]

    def write(self, text: str) -> int:
        try:
            self._stream.write(text)
        except (OSError, ValueError):
            self._give_up()
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError):
            self._give_up()

    def _give_up(self) -> None:
        # What is in the buffer goes nowhere, at the end of the process too.
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def sound_output() -> Iterator[None]:
    """Make a standard output that is closed, full, or without a reader change nothing."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:  # else the next file that is opened would get the number
            os.open(os.devnull, os.O_RDWR)
    before = sys.stdout, sys.stderr
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name) or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        setattr(sys, name, _Sound(stream))
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = before


def is_stream(path: Path) -> bool:
    """Return whether a file is written to and not replaced: `-`, a FIFO, a device, /dev/stdout.

    >>> is_stream(Path("-")), is_stream(Path("/dev/null")), is_stream(Path("found.json"))
    (True, True, False)
    """
    if str(path) == "-":
        return True
    # /dev/stdout may lead to a file of any kind; its own name must stay what it is.
    if Path(os.path.abspath(path)).parts[:2] in (("/", "dev"), ("/", "proc")):
        return os.path.exists(path)
    try:
        kind = path.stat().st_mode
    except OSError:
        return False
    return not stat.S_ISREG(kind) and not stat.S_ISDIR(kind)


def is_stdout(path: Path | None) -> bool:
    """Return whether a file is this process's standard output, where nothing else may then go.

    >>> is_stdout(Path("-")), is_stdout(Path("/dev/null")), is_stdout(None)
    (True, False, False)
    """
    names = ("-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1")
    return path is not None and str(path) in names


def problem_with_file(option: str, path: Path) -> str | None:
    """Return why a result file could not be written, by trying; `None`: it could.

    Args:
        option: Which option names it.
        path: The file; "-" is standard output.
    """
    try:
        if is_stream(path):
            if str(path) == "-" or os.access(path, os.W_OK):
                return None
            return f"{option} cannot be written: {visible(path)}: Permission denied"
        if path.is_dir():
            return f"{option} must be a file. {visible(path)} is a folder."
        if not path.parent.is_dir():
            return f"No such folder: {visible(path.parent)} ({option})"
        descriptor, partial = _new_file(path.parent)
        os.close(descriptor)
        _discard(partial)
    except (OSError, ValueError, RuntimeError) as error:
        return (
            f"{option} cannot be written: {visible(str(path)[:300])}: {visible(first_line(error))}"
        )
    return None


def _new_file(folder: Path) -> tuple[int, Path]:
    """Open a file of a new name, which nobody else has, and no link leads elsewhere."""
    path = folder / f".sae-oracle-{secrets.token_hex(8)}.partial"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    return os.open(path, flags, 0o666), path


def _discard(path: Path) -> None:
    try:
        path.unlink()
    except BaseException:  # interrupted
        path.unlink(missing_ok=True)
        raise


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def write_result(path: Path, content: str | bytes) -> None:
    """Write a file whole or not at all, onto the disk; write to a stream what is written to.

    Args:
        path: The file; "-" is standard output.
        content: Text (in UTF-8) or bytes.

    Raises:
        OSError: If it cannot be written; a file that was there before is as it was.
    """
    data = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
    if is_stream(path):
        _write_to_stream(path, data)
        return
    descriptor, partial = _new_file(path.parent)
    try:
        try:
            _write_all(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        partial.replace(path)
    except BaseException:
        _discard(partial)
        raise
    _sync(path.parent)


def write_each(files: Mapping[Path, Callable[[Path], None]]) -> dict[Path, str]:
    """Write several files; one that fails keeps none of the others.

    Args:
        files: What writes each of them.

    Returns:
        What went wrong, by file.
    """
    problems = {}
    for path, write in files.items():
        try:
            write(path)
        except (OSError, MemoryError) as error:
            problems[path] = f"{visible(path)} is not written: {visible(first_line(error))}"
    return problems


def for_programs(schema_version: int, found: Mapping[str, Any]) -> str:
    """Return the JSON of a command; what is no number or infinite is a string, which JSON has.

    Args:
        schema_version: It changes when a name of `found` goes or means something else.
        found: What the command found.

    >>> print(for_programs(1, {"worst": math.inf}).replace(__version__, "0.1.0"), end="")
    {
     "schema_version": 1,
     "version": "0.1.0",
     "worst": "Infinity"
    }
    """
    everything = {"schema_version": schema_version, "version": __version__, **found}
    return json.dumps(_replaced(everything, _named), indent=1, allow_nan=False) + "\n"


def from_programs(text: str) -> Any:
    """Return what `for_programs` was given, with the two versions.

    >>> from_programs('{"worst": ["-Infinity", "NaN", "inside"]}')
    {'worst': [-inf, nan, 'inside']}
    """
    numbers = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
    return _replaced(
        json.loads(text),
        lambda value: numbers.get(value, value) if isinstance(value, str) else value,
    )


def _named(value: Any) -> Any:
    is_strange = isinstance(value, float) and not math.isfinite(value)
    return json.dumps(value) if is_strange else value


def _replaced(value: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(value, Mapping):
        return {name: _replaced(item, change) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_replaced(item, change) for item in value]
    return change(value)


def _write_to_stream(path: Path, data: bytes) -> None:
    if str(path) == "-":
        sys.stdout.flush()
        try:
            descriptor = sys.stdout.fileno()
        except (OSError, ValueError):  # a program has put something else in its place
            sys.stdout.write(data.decode("utf-8"))
            return
        _write_all(descriptor, data)
        return
    waited = 0.0
    while True:
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
            break
        except OSError as error:
            if error.errno != errno.ENXIO or waited >= READER_WAIT:  # a FIFO that nobody reads
                raise
        time.sleep(0.1)
        waited += 0.1
    try:
        os.set_blocking(descriptor, True)
        _write_all(descriptor, data)
    finally:
        os.close(descriptor)


def _sync(path: Path) -> None:
    """Let a file, or the names in a folder, reach the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:  # some file systems cannot do it for a folder
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


class ResultFolder:
    """A folder whose results are replaced together, by one command at a time.

    Entering makes the folder, locks it, and makes a temporary folder inside it (`path`): so that
    it can be written is known before any work, and it may be a mount point. What a command that was
    killed has left is finished if it was whole, else removed. Leaving without `commit` leaves
    everything as it was.

    Args:
        out: The folder; with its parents it is made if it is missing.
        names: The files of a result. The first is the one that the others are about.

    Raises:
        BlockingIOError: On entering, if another command holds the folder.
        OSError: On entering, if it cannot be written.
    """

    def __init__(self, out: Path, names: Sequence[str]) -> None:
        self.out = out
        self.names = tuple(names)
        self.path = out
        self.has_finished_another = False
        self._made: list[Path] = []
        self._lock = -1

    def __enter__(self) -> ResultFolder:
        try:
            self._make()
            self._lock = os.open(self.out, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise
            except OSError:  # a file system without locks
                pass
            for name in self.names:
                if (self.out / name).is_dir():
                    raise IsADirectoryError(errno.EISDIR, f"{plain(name)} in it is a folder")
            if (self.out / READY).is_dir():
                self._put_in_place()
                self.has_finished_another = True
            for stale in self.out.glob(f"{TEMPORARY}*"):
                if stale.is_dir():
                    shutil.rmtree(stale, ignore_errors=True)
                else:
                    stale.unlink(missing_ok=True)
            self.path = self.out / f"{TEMPORARY}{secrets.token_hex(8)}"
            self.path.mkdir(mode=0o700)
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._leave()

    def commit(self) -> None:
        """Let the files in `path` take the place of those of an earlier result.

        Killed at any moment, it leaves the old model, or the new one; never one of them beside
        what is about the other. What is not in place then will be by the next command.

        Raises:
            OSError: If they cannot; what was there before is as it was, or the new result is
                whole in `READY`.
        """
        for file in self.path.iterdir():
            _sync(file)
        _sync(self.path)
        # From here on the new result is the result.
        self.path.rename(self.out / READY)
        self._made = []
        _sync(self.out)
        self._put_in_place()

    def _put_in_place(self) -> None:
        ready = self.out / READY
        first, *others = self.names
        if (ready / first).exists():
            for name in others:
                (self.out / name).unlink(missing_ok=True)
            _sync(self.out)
        for name in self.names:
            if (ready / name).exists():
                (ready / name).replace(self.out / name)
                _sync(self.out)
        shutil.rmtree(ready)

    def _make(self) -> None:
        missing = []
        folder = self.out
        while not folder.exists():
            missing.append(folder)
            folder = folder.parent
        for folder in reversed(missing):
            folder.mkdir(exist_ok=True)
            self._made.append(folder)

    def _leave(self) -> None:
        if self.path != self.out:
            shutil.rmtree(self.path, ignore_errors=True)
        for folder in reversed(self._made):
            with contextlib.suppress(OSError):  # not empty: somebody else's by now
                folder.rmdir()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
