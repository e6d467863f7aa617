"""Names of files that no other name can take, and files that are there entirely or not at all."""

from __future__ import annotations

import errno
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

from upernet.errors import UserError

_UNFINISHED = ".upernet-"
"""How the names of unfinished files begin; the process's number follows."""


def file_part(name: str, keep: str = "") -> str:
    """A name as part of a file's name: of a task or a source, which a downloaded model chose, or of an address.

    Letters, digits, `_` and `-` of any script stay; every other character is written in percent-encoding, as in
    addresses. The result therefore names no folder, and two different names never become one.

    Args:
        name: Any text, such as `object` or `../../etc`.
        keep: Further characters that stay.
    """
    odd = re.compile(rf"[^\w{re.escape('-' + keep)}]")
    return odd.sub(lambda c: "".join(f"%{byte:02X}" for byte in c[0].encode("utf-8", "surrogatepass")), name)


def check_writable(option: str, path: Path) -> None:
    """Refuse, before any work, a place where no file can be written.

    Args:
        option: Of the command line, for the error line.
        path: The file.

    Raises:
        UserError: If it is a folder, a part of its path is a file, or nothing may be written there.
    """
    if path.is_dir():
        raise UserError(f"{option} {path} is a folder; valid: a file, such as {path / 'report.json'}")
    above = next((p for p in path.parents if p.exists()), None)
    if above is not None and not above.is_dir():
        raise UserError(f"{option} {path}: {above} is a file; valid: a file in a folder, such as report.json")
    try:
        with TemporaryFile(dir=above):
            pass
    except OSError as error:
        raise UserError(f"{option} {path}: nothing can be written in {above} ({error.strerror})") from error


def check_folder(option: str, path: Path, example: str) -> None:
    """Refuse a file where a folder is wanted.

    Args:
        option: Of the command line, for the error line.
        path: The folder, which need not exist.
        example: A valid path, for the error line.

    Raises:
        UserError: If it is a file.
    """
    if path.exists() and not path.is_dir():
        raise UserError(f"{option} {path} is a file; valid: a folder, such as {example}")


def make_folder(path: Path, option: str = "") -> None:
    """Make a folder, and those above it, unless it is there.

    Args:
        path: The folder.
        option: Of the command line, for the error line; empty if none names the folder.

    Raises:
        UserError: If it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        named = f"{option} {path}".lstrip()
        raise UserError(f"{named}: {error.strerror}; valid: a folder that can be written") from None


def write_whole(path: Path, write: Callable[[IO[bytes]], Any], *, durable: bool = True) -> None:
    """Write a file that is there entirely or not at all, whatever interrupts.

    Args:
        path: Replaced if it exists.
        write: Writes the content into the open file.
        durable: Hold against a power cut too, see `put_in_place`. This waits for the disk, 10 to 20 ms a file on a
            common SSD. Only many small files that the same command can make again are better off without.

    Raises:
        OSError: If the file cannot be written; what was there before is still there.
    """
    unfinished = _unfinished(path)
    try:
        with open(unfinished, "wb") as file:
            write(file)
        if durable:
            put_in_place(unfinished, path)
        else:
            os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_whole_folder(path: Path, write: Callable[[Path], Any]) -> None:
    """Write a folder that is there entirely or not at all. After a power cut its files may be damaged.

    Args:
        path: The folder, in one that exists. What is there is deleted before.
        write: Writes the files into the empty folder that it is given.

    Raises:
        OSError: If the folder cannot be written.
    """
    unfinished = _unfinished(path)
    try:
        unfinished.mkdir()
        write(unfinished)
        shutil.rmtree(path, ignore_errors=True)
        os.replace(unfinished, path)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _unfinished(path: Path) -> Path:
    """A name beside a file or folder for what is written of it, until it is whole."""
    return path.with_name(f"{_UNFINISHED}{os.getpid()}-{os.urandom(4).hex()}.tmp")


def remove_unfinished(folder: Path) -> None:
    """Remove what `write_whole` and `write_whole_folder` left in a folder when their process was killed.

    Files of running processes stay.
    """
    for path in folder.glob(f"{_UNFINISHED}*-*.tmp"):
        process = path.name.removeprefix(_UNFINISHED).partition("-")[0]
        if not process.isdigit() or _is_running(int(process)):
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    """Whether a process is running, as far as can be told."""
    if os.name == "nt":  # where signal 0 would end the process
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True


def put_in_place(finished: Path, path: Path) -> None:
    """Give a finished file its name, so that a power cut leaves the old content or the new one.

    Args:
        finished: A file in the folder of `path`.
        path: Replaced if it exists.
    """
    # A file system may store the new name before the content; after a power cut the file would then be empty.
    with open(finished, "rb+") as file:
        os.fsync(file.fileno())
    os.replace(finished, path)
    if os.name != "nt":  # Windows opens no folders
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF):  # file systems that sync no folders, as some network ones
            raise
    finally:
        os.close(descriptor)


@contextmanager
def lock(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Let only one process or thread at a time into the block, by a lock file that is deleted afterwards.

    Nothing is locked on Windows, nor on file systems without locks, as some network ones.

    Args:
        path: The lock file, which is in the way of nothing else.
        waiting: Called, before the wait, if another one is in the block.
    """
    while True:
        file = open(path, "ab")  # noqa: SIM115 (the lock lives as long as the file is open)
        try:
            _wait_for(file, waiting)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    break
        except BaseException:
            file.close()
            raise
        # The previous holder deleted the file while we waited, so the next process would lock another file.
        file.close()
    try:
        yield
    finally:
        with suppress(OSError):  # systems that cannot delete an open file keep it
            path.unlink()
        file.close()


def _wait_for(file: IO[bytes], waiting: Callable[[], None]) -> None:
    if sys.platform == "win32":
        return  # no fcntl there
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        waiting()
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError:
        pass  # a file system without locks
