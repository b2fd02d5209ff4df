"""Work spread over spawned processes (never forked: polars and OpenMP hold locks that a fork would copy)."""

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
_AHEAD = 4
"""Items a worker that wait or are done, but not yet taken: what keeps memory flat."""


def spread_over(
    work: Callable[[Item], Result], items: Sequence[Item], workers: int, *, least: int = 2
) -> Iterator[Result]:
    """Apply a function to items, in order of the items, a few ahead of what is taken.

    Args:
        work: A function of a module, so that a spawned process finds it.
        items: What it is applied to.
        workers: Processes; 1 stays in this one.
        least: Fewer items than this stay in this process, for starting one takes a second.
    """
    if workers <= 1 or len(items) < least:
        yield from map(work, items)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(items)), mp_context=context) as pool:
        waiting: deque[Future[Result]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > _AHEAD * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
