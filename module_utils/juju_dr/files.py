"""Writing files whole or not at all, and measuring folders."""

from __future__ import annotations

import os
from pathlib import Path

# How a file is named until it is whole.
FRESH = ".juju-dr-new"


def write_whole(path: Path, text: str, mode: int = 0o600, owner: os.stat_result | None = None) -> None:
    """Puts a file in place in one step: it appears with all of its text, mode and owner, on disk, or not at all.

    :param text: bytes that are no UTF-8 may stand in it as Python's surrogate escapes.
    :param owner: whose the file shall be; None leaves it ours.
    """
    fresh = path.with_name(path.name + FRESH)
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(handle, "w", encoding="utf-8", errors="surrogateescape") as target:
        target.write(text)
        target.flush()
        os.fsync(target.fileno())
    if owner is not None:
        os.chown(fresh, owner.st_uid, owner.st_gid)
    fresh.chmod(mode)
    fresh.replace(path)


def own_like(source: Path, target: Path) -> None:
    """Gives a copy the owner of what it was copied from, where we may."""
    if os.geteuid() == 0:
        status = os.lstat(source)
        os.chown(target, status.st_uid, status.st_gid, follow_symlinks=False)


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files below a folder; 0 for what is not there, or goes meanwhile."""
    try:
        if path.is_dir() and not path.is_symlink():
            return sum(size_of(entry) for entry in path.iterdir())
        return path.lstat().st_size
    except FileNotFoundError:
        return 0


def sync_folder(folder: Path) -> None:
    """Renames in a folder are on disk when this returns."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
