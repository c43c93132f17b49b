"""The keys that may log in to a host: its own stay, an archive's are added."""

from __future__ import annotations

from pathlib import Path


def text_of(path: Path) -> str:
    """A file's text, empty when there is none; comments of keys may be in any encoding."""
    return path.read_text(encoding="utf-8", errors="surrogateescape") if path.exists() else ""


def merged(own: str, archived: str) -> str:
    """The lines of both, the host's first; its own text as it is when it lacks none of the archive's."""
    lines = own.splitlines()
    missing = [line for line in dict.fromkeys(archived.splitlines()) if line and line not in lines]
    return "\n".join([*lines, *missing]) + "\n" if missing else own
