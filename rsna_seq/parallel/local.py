"""Work spread over spawned processes (never forked: polars and OpenMP hold locks that a fork would copy).

A spawned process of Python runs the caller's script again, and a script without ``if __name__ ==
"__main__"`` then starts processes of its own. Those of :func:`spawn_context` do not: what they run is
found by the name of its module.
"""

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import popen_spawn_posix, resource_tracker, spawn
from multiprocessing.context import SpawnContext, SpawnProcess
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any, NoReturn, TypeVar

from rsna_seq.errors import EnvironmentFaultError

Item = TypeVar("Item")
Result = TypeVar("Result")
_AHEAD = 4
"""Items a worker that wait or are done, but not yet taken: what keeps memory flat."""
_WORTH_S = 4.0
"""Seconds of work for which other processes are started: that takes two."""
_INTERRUPTED = 130
_STARTING = threading.Lock()


class WorkerDied:
    """What stands for the result of an item on which a process died, twice, the second time alone."""


def parallel_map(
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

    Raises:
        EnvironmentFaultError: A process dies before it can begin.
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
                yield _alone(work, item)


def spawn_context() -> SpawnContext:
    """A context of ``multiprocessing`` whose processes do not run the caller's script again."""
    return _Context()


def _pooled(work: Callable[[Item], Result], items: Sequence[Item], workers: int) -> Iterator[Result]:
    """Results in order of the items, up to the end or to where a process died."""
    with _pool(min(workers, len(items))) as pool:
        waiting: deque[Future[Result]] = deque()
        try:
            for item in items:
                waiting.append(_submit(pool, work, item))
                if len(waiting) > _AHEAD * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool:
            return
        finally:
            pool.shutdown(cancel_futures=True)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Start processes that take no Ctrl-C until :func:`_take_interrupts`; this process takes it afterwards.

    A terminal sends it to all processes at once, and one that still imports would print a traceback.
    """
    resource_tracker.ensure_running()  # else it is started below, and lets the signal through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _take_interrupts() -> None:
    """Let Ctrl-C end this worker without a word; the process that started it says what there is to say."""
    if signal.SIGINT in signal.sigpending():
        os._exit(_INTERRUPTED)
    signal.signal(signal.SIGINT, _end)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _end(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(_INTERRUPTED)


def _pool(workers: int) -> ProcessPoolExecutor:
    """Processes that do not run the caller's script, and end without a word at Ctrl-C."""
    return ProcessPoolExecutor(workers, mp_context=spawn_context(), initializer=_take_interrupts)


def _alone(work: Callable[[Item], Result], item: Item) -> Result | WorkerDied:
    """The result of one item in a process of its own."""
    began = False
    with _pool(1) as pool:
        try:
            _submit(pool, _begin, work).result()
            began = True
            return _submit(pool, work, item).result()
        except BrokenProcessPool as error:
            if began:
                return WorkerDied()
            raise EnvironmentFaultError(
                "a worker process died before it began: no file is at fault; "
                "free memory, or use fewer workers (workers=1 starts none)"
            ) from error


def _submit(pool: ProcessPoolExecutor, work: Callable[[Item], Result], item: Item) -> Future[Result]:
    """Submit an item; a pool that breaks at this moment, or cannot start a process, is a broken one."""
    try:
        with _interrupts_held():
            return pool.submit(work, item)
    except OSError as error:
        raise BrokenProcessPool("no process could be started") from error


def _begin(_work: object) -> None:
    """What a worker process does first: it tells that it could start, and find what it shall run."""


class _Popen(popen_spawn_posix.Popen):
    """Starts a process that is not told of the caller's script."""

    def _launch(self, process_obj: BaseProcess) -> None:
        with _STARTING:
            told, caller = spawn.get_preparation_data, threading.get_ident()

            def without_script(name: str) -> dict[str, Any]:
                data = told(name)
                if threading.get_ident() != caller:
                    return data  # a process that another thread of the caller's starts meanwhile
                return {key: value for key, value in data.items() if not key.startswith("init_main_from")}

            spawn.get_preparation_data = without_script
            try:
                super()._launch(process_obj)  # type: ignore[misc]  # typeshed leaves it out
            finally:
                spawn.get_preparation_data = told


class _Process(SpawnProcess):
    @staticmethod
    def _Popen(process_obj: BaseProcess) -> popen_spawn_posix.Popen:  # noqa: N802  (the name that the library calls)
        return _Popen(process_obj)


class _Context(SpawnContext):
    Process = _Process
