"""The folder of a file: held open, with the file's lock and safe ways to open it.

The folder is opened once and everything goes through its descriptor, so nobody can redirect a later
step by exchanging the folder for a symbolic link.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import sys
import weakref
from collections.abc import Generator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from rxflow.errors import SinkError
from rxflow.log import escaped

if sys.platform != "win32":
    import fcntl

_OPEN: Final = os.O_RDWR | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
_ADVICE: Final = {
    errno.EACCES: "check the permissions of the file and its folder",
    errno.EPERM: "check the permissions of the file and its folder",
    errno.EROFS: "choose a path on a file system that can be written",
    errno.ENOSPC: "free some space and start again; what is not stored is not acknowledged",
    errno.EDQUOT: "free some space and start again; what is not stored is not acknowledged",
    errno.EFBIG: "raise the limit, or begin a new file; what is not stored is not acknowledged",
    errno.ELOOP: "it is a symbolic link; choose a path of its own for the sink",
    errno.ENOTDIR: "a part of the path is a file",
    errno.ENAMETOOLONG: "choose a shorter name",
}
_CHECK_DISK: Final = "check the disk, then start again: opening the file recovers it"


def explanation(path: Path, doing: str, error: OSError) -> SinkError:
    """Turn an error of the system into one that names the file and says what to do."""
    advice = _ADVICE.get(error.errno or 0, _CHECK_DISK)
    said = error.strerror or error
    return SinkError(f"{escaped(path)}: cannot {doing}: {said}; {advice}")


@contextmanager
def explained(path: Path, doing: str) -> Generator[None]:
    """Raise the `explanation` of what the system says."""
    try:
        yield
    except OSError as error:
        raise explanation(path, doing, error) from error


def identity(fd: int) -> tuple[int, int]:
    """The identity of an open file: its device, and its number there."""
    found = os.fstat(fd)
    return found.st_dev, found.st_ino


class Place:
    """A name in a folder, locked for this writer until `close`.

    Args:
        path: Where the file is or will be; missing parents are made.
        mode: Permission bits of files made here; None leaves them to the umask.

    Raises:
        SinkError: The folder can't be made or opened, or another writer has the lock.
    """

    def __init__(self, path: Path, mode: int | None) -> None:
        self.path = path
        self.mode = mode
        self._name, self._lock_name = path.name, f"{path.name}.lock"
        self._lock = self._folder = -1
        _places.add(self)
        with explained(path, "open its folder"):
            _make_folder(path.absolute().parent)
            self._folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._lock = self._locked()
            self._lock_identity = identity(self._lock)
        except BaseException:
            self.close()
            raise

    def _locked(self) -> int:
        """Lock a file of its own that is never renamed: after a rename two would hold the lock."""
        lock = self.path.with_name(self._lock_name)
        with explained(lock, "open it"):
            flags = _OPEN | os.O_CREAT | os.O_NONBLOCK
            fd = os.open(lock.name, flags, 0o666, dir_fd=self._folder)
            try:
                _check(lock, os.fstat(fd))
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                os.close(fd)
                text = (
                    f"{escaped(self.path)} is locked: another sink holds the lock; close it first"
                )
                raise SinkError(text) from error
            except BaseException:
                os.close(fd)
                raise
        return fd

    def open(self, suffix: str = "") -> int | None:
        """The descriptor of the file, or of one beside it; None if there is none.

        Args:
            suffix: What the name of the other has behind that of this file.

        Raises:
            SinkError: What stands there is no regular file of one name, or can't be opened.
        """
        path = self.path.with_name(f"{self.path.name}{suffix}")
        with explained(path, "open it"):
            try:
                found = os.stat(path.name, dir_fd=self._folder, follow_symlinks=False)
            except FileNotFoundError:
                return None
            _check(path, found)  # before it is opened: opening a device may do something
            fd = os.open(path.name, _OPEN | os.O_NONBLOCK, dir_fd=self._folder)
            try:
                _check(path, os.fstat(fd))
            except BaseException:
                os.close(fd)
                raise
        return fd

    def create(self, content: bytes, mode: int | None = None) -> int:
        """Make the file, with this content, durably; it must not be there.

        Args:
            content: What is in it when it appears for good.
            mode: Permission bits, where they are not those of this place.
        """
        return self._create(self.path.name, content, self.mode if mode is None else mode)

    def _create(self, name: str, content: bytes, mode: int | None) -> int:
        flags = _OPEN | os.O_CREAT | os.O_EXCL
        fd = os.open(name, flags, 0o666 if mode is None else mode, dir_fd=self._folder)
        try:
            if mode is not None:
                os.fchmod(fd, mode)
            write_all(fd, content, 0)
            flush(fd)
            self.flush_folder()
        except BaseException:
            os.close(fd)
            with suppress(OSError):
                os.unlink(name, dir_fd=self._folder)
            raise
        return fd

    def replace(self, suffix: str, content: bytes) -> int:
        """Make the file beside anew, whole or not at all after any crash; its descriptor."""
        name = f"{self.path.name}{suffix}"
        fresh = f"{name}.new"
        with suppress(FileNotFoundError):
            os.unlink(fresh, dir_fd=self._folder)  # a crash left it
        fd = self._create(fresh, content, self.mode)
        try:
            os.rename(fresh, name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
            self.flush_folder()
        except BaseException:
            os.close(fd)
            raise
        return fd

    def is_locked(self) -> bool:
        """True if the lock's name still leads to the lock that is held."""
        return self._leads_to(self._lock_name, self._lock_identity) is not None

    def is_still(self, ours: tuple[int, int], size: int) -> bool:
        """True if the path still leads to the file of this identity, and nobody changed its size.

        One look by the path tells as much as a second by the descriptor: they are the same file.
        """
        found = self._leads_to(self._name, ours)
        return found is not None and found.st_size == size

    def _leads_to(self, name: str, ours: tuple[int, int]) -> os.stat_result | None:
        try:
            found = os.stat(name, dir_fd=self._folder, follow_symlinks=False)
        except FileNotFoundError:
            return None
        return found if (found.st_dev, found.st_ino) == ours else None

    def keep_torn(self, cut: bytes, mode: int) -> Path:
        """Copy what recovery is about to cut off to a file beside; returns its path."""
        plain = f"{self.path.name}.torn-{_utc()}"
        names = (f"{plain}-{number}" if number else plain for number in range(1_000_000))
        for name in names:
            with suppress(FileExistsError):
                os.close(self._create(name, cut, mode))
                return self.path.with_name(name)
        raise FileExistsError(errno.EEXIST, "too many torn files", plain)

    def rotate(self) -> Path:
        """Rename the file to `name-<UTC>-<number>.suffix`, durably; returns its new path.

        Numbers follow those in the folder, so the order holds when the clock jumps.
        """
        stem, suffix = re.escape(self.path.stem), re.escape(self.path.suffix)
        pattern = re.compile(rf"{stem}-\d{{8}}T\d{{6}}Z-(\d+){suffix}")
        names = os.listdir(self._folder)  # noqa: PTH208 (pathlib has no descriptors)
        numbers = [int(found[1]) for name in names if (found := pattern.fullmatch(name))]
        number = max(numbers, default=0) + 1
        name = f"{self.path.stem}-{_utc()}-{number:06}{self.path.suffix}"
        os.rename(self.path.name, name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        self.flush_folder()
        return self.path.with_name(name)

    def flush_folder(self) -> None:
        """Make the folder's names durable."""
        os.fsync(self._folder)

    @property
    def is_open(self) -> bool:
        """True until `close`; in a forked child False: the lock stays with the parent."""
        return self._lock >= 0

    def close(self) -> None:
        """Let go of lock and folder. The lock's file stays: removing it would let two have it."""
        for fd in (self._lock, self._folder):
            if fd >= 0:
                os.close(fd)
        self._lock = self._folder = -1


_places: Final[weakref.WeakSet[Place]] = weakref.WeakSet()


def _leave_all() -> None:
    """A child that outlives its parent must not keep the next process from the parent's files."""
    for place in list(_places):
        place.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_all)


_KINDS: Final = {
    stat.S_IFDIR: "a folder",
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFBLK: "a device",
    stat.S_IFCHR: "a device",
}


def _check(path: Path, found: os.stat_result) -> None:
    """Refuse what is no regular file of one name."""
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "no regular file")
    elif found.st_nlink != 1:
        kind = f"a file of {found.st_nlink} names (hard links)"
    else:
        return
    raise SinkError(f"{escaped(path)} is {kind}; choose a path of its own for the sink")


def write_all(fd: int, content: bytes, at: int) -> None:
    """Write at an offset, however many calls it takes."""
    written = os.pwrite(fd, content, at)
    while written < len(content):
        written += os.pwrite(fd, memoryview(content)[written:], at + written)


def flush(fd: int) -> None:
    """Return when the file's bytes are on the disk, through its cache."""
    if sys.platform == "darwin":
        fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
    else:
        os.fdatasync(fd)


def _make_folder(folder: Path) -> None:
    """Make it and its parents, each name durable in its own parent."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    with suppress(FileExistsError):
        folder.mkdir()
    parent = os.open(folder.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)


def _utc() -> str:
    """A name's date, by the machine's clock: for people; nothing is ordered by it."""
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
