"""SHA-256 of what passes, reckoned by another thread: hashing needs no interpreter, so both work at the same time."""

from __future__ import annotations

import hashlib
from collections import deque
from concurrent.futures import Executor, Future

# What is handed over at once, and how many of those may wait: hashing is faster than what makes the bytes.
_PIECE = 256 * 1024
_MOST = 4


class Digest:
    """The digest of bytes in the order in which they are given.

    :param worker: of one thread, so that the order is kept.
    """

    def __init__(self, worker: Executor) -> None:
        self._worker = worker
        self._sha256 = hashlib.sha256()
        self._gathered: list[bytes] = []
        self._size = 0
        self._under_way: deque[Future[None]] = deque()

    def update(self, data: bytes) -> None:
        """Takes bytes in; small pieces are gathered."""
        self._gathered.append(data)
        self._size += len(data)
        if self._size >= _PIECE:
            self._under_way.append(self._worker.submit(self._take, self._gathered))
            self._gathered, self._size = [], 0
            if len(self._under_way) > _MOST:
                self._under_way.popleft().result()

    def hexdigest(self) -> str:
        """Of all that was given."""
        while self._under_way:
            self._under_way.popleft().result()
        # What is left is too little to be worth the other thread.
        self._take(self._gathered)
        self._gathered, self._size = [], 0
        return self._sha256.hexdigest()

    def _take(self, pieces: list[bytes]) -> None:
        self._sha256.update(b"".join(pieces))
