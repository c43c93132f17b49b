"""A dump as files of a folder, one batch after the other."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, Callable, Iterable


class Folder:
    """Takes a dump's files as files of a folder that it makes, closed to others."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(mode=0o700)

    def add(self, name: str, blocks: Iterable[bytes], facts: Callable[[], dict[str, Any]] | None = None) -> dict[str, Any]:
        place = self.path / name
        for folder in reversed([one for one in place.parents if self.path in one.parents]):
            folder.mkdir(mode=0o700, exist_ok=True)
        digest = hashlib.sha256()
        with open(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as target:
            for block in blocks:
                target.write(block)
                digest.update(block)
        return {"name": name, "size": place.stat().st_size, "sha256": digest.hexdigest(), **(facts() if facts else {})}
