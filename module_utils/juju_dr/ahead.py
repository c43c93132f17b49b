"""Reads ahead: one thread fetches what another is about to work on, never more than it was told to hold."""

from __future__ import annotations

import threading
from collections import deque
from typing import Callable, Generic, Iterator, TypeVar

T = TypeVar("T")


class Ahead(Generic[T]):
    """Iterates over ``source`` in a thread of its own; an error there is raised here, after all that came before it.

    :param size: bytes that an item stands for.
    :param limit: bytes held at most, plus one item.
    """

    def __init__(self, source: Iterator[T], size: Callable[[T], int], limit: int) -> None:
        self._source, self._size, self._limit = source, size, limit
        self._items: deque[T] = deque()
        self._bytes = 0
        self._changed = threading.Condition()
        self._error: BaseException | None = None
        self._ended = self._given_up = False
        self._thread = threading.Thread(target=self._fetch, name="read-ahead", daemon=True)

    def __enter__(self) -> Ahead[T]:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._given_up = True
            self._changed.notify_all()
        self._thread.join()

    def __iter__(self) -> Ahead[T]:
        return self

    def __next__(self) -> T:
        with self._changed:
            while not self._items and not self._ended:
                self._changed.wait()
            if self._items:
                item = self._items.popleft()
                self._bytes -= self._size(item)
                self._changed.notify_all()
                return item
            if self._error is not None:
                raise self._error
            raise StopIteration

    def _fetch(self) -> None:
        try:
            for item in self._source:
                if not self._put(item):
                    break
        except BaseException as error:  # noqa: BLE001 - handed over to the other thread
            self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _put(self, item: T) -> bool:
        with self._changed:
            while self._bytes >= self._limit and not self._given_up:
                self._changed.wait()
            self._items.append(item)
            self._bytes += self._size(item)
            self._changed.notify_all()
            return not self._given_up
