"""Work spread over spawned processes (never forked: polars and OpenMP hold locks that a fork would copy)."""

import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import resource_tracker
from types import FrameType
from typing import NoReturn, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
_AHEAD = 4
"""Items a worker that wait or are done, but not yet taken: what keeps memory flat."""
_WORTH_S = 4.0
"""Seconds of work for which other processes are started: that takes two."""
_INTERRUPTED = 130


class WorkerDied:
    """What stands for the result of an item on which a process died, twice, the second time alone."""


def spread_over(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int,
    *,
    apart: bool = False,
) -> Iterator[Result | WorkerDied]:
    """Apply a function to items, in order of the items, a few ahead of what is taken.

    A process that dies takes none but its own item with it: what was under way is done again, item by
    item, each in a process of its own, and only an item that kills that one too is given up.

    The first item is done here, and the others, too, where its pace says that they are done before other
    processes have started.

    Args:
        work: A function of a module, so that a spawned process finds it.
        items: What it is applied to.
        workers: Processes; 1 stays in this one.
        apart: Never stay in this process, be there one worker or one item.
    """
    done = 0
    if not apart:
        start = time.monotonic()
        yield from map(work, items[:1])
        done = len(items[:1])
        if workers <= 1 or (time.monotonic() - start) * len(items[1:]) < _WORTH_S:
            yield from map(work, items[1:])
            return
    while done < len(items):
        for result in _pooled(work, items[done:], workers):
            done += 1
            yield result
        if done < len(items):  # the pool broke: what was under way, once more and alone
            for item in items[done : done + (_AHEAD + 1) * workers]:
                done += 1
                yield next(_pooled(work, [item], 1), WorkerDied())


def _pooled(work: Callable[[Item], Result], items: Sequence[Item], workers: int) -> Iterator[Result]:
    """Results in order of the items, up to the end or to where a process died."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        min(workers, len(items)), mp_context=context, initializer=take_interrupts
    ) as pool:
        waiting: deque[Future[Result]] = deque()
        try:
            for item in items:
                with interrupts_held():
                    waiting.append(pool.submit(work, item))
                if len(waiting) > _AHEAD * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool:
            return
        finally:
            pool.shutdown(cancel_futures=True)


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Start processes that take no Ctrl-C until :func:`take_interrupts`; this process takes it afterwards.

    A terminal sends it to all processes at once, and one that still imports would print a traceback.
    """
    resource_tracker.ensure_running()  # else it is started below, and lets the signal through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def take_interrupts() -> None:
    """Let Ctrl-C end this worker without a word; the process that started it says what there is to say."""
    if signal.SIGINT in signal.sigpending():
        os._exit(_INTERRUPTED)
    signal.signal(signal.SIGINT, _end)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _end(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(_INTERRUPTED)
