"""Reading many files in their order, a few of them ahead in threads."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from SAMFineTuneLib.errors import InputError

_Item = TypeVar("_Item")
_Content = TypeVar("_Content")
_MOST_THREADS = 8


def read_ahead(
    items: Iterable[_Item], read: Callable[[_Item], _Content]
) -> Iterator[tuple[_Item, _Content | InputError]]:
    """Each item with what `read` makes of it, or with the error that it raises."""

    def attempt(item: _Item) -> _Content | InputError:
        try:
            return read(item)
        except InputError as error:
            return error

    threads = min(_MOST_THREADS, os.cpu_count() or 1)
    waiting: deque[tuple[_Item, Future[_Content | InputError]]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="prepare")
    try:
        for item in items:
            waiting.append((item, pool.submit(attempt, item)))
            if len(waiting) > 2 * threads:
                first, future = waiting.popleft()
                yield first, future.result()
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()
    finally:
        pool.shutdown(cancel_futures=True)
