"""Parallel map over spawned processes (never forked: a fork would copy locks of polars and OpenMP).

A spawned Python process normally runs the caller's script again, and a script without ``if __name__ ==
"__main__"`` would then start processes recursively. Processes of :func:`spawn_context` do not run the script:
the function that they call is imported by the name of its module.
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
"""Items per worker that are queued or done but not yet consumed; this bounds the memory."""
_WORTH_S = 4.0
"""Seconds of remaining work from which processes are started; starting them takes about two seconds."""
_INTERRUPTED = 130
_STARTING = threading.Lock()


class WorkerDied:
    """Result of an item on which a process died twice, the second time in a process of its own."""


def parallel_map(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int,
    *,
    apart: bool = False,
) -> Iterator[Result | WorkerDied]:
    """Apply a function to items and yield the results in order; a few items are computed in advance.

    If a process dies, only the item that it worked on is lost: the items in progress are run again, each in
    a process of its own, and only an item that ends that process as well gets no result.

    The first item runs in this process. The rest does as well if the time of the first item shows that this
    is faster than starting processes.

    Args:
        work: A function defined at module level, so that a spawned process can import it.
        items: Arguments of the function.
        workers: Number of processes; with 1, the work runs in this process.
        apart: Always use other processes, also for one worker or one item.

    Raises:
        EnvironmentFaultError: A process dies before it starts its item.
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
        if done < len(items):  # the pool broke: run the items in progress again, one process each
            for item in items[done : done + (_AHEAD + 1) * workers]:
                done += 1
                yield _run_alone(work, item)


def spawn_context() -> SpawnContext:
    """Return a ``multiprocessing`` context whose processes do not run the caller's script again."""
    return _Context()


def _pooled(work: Callable[[Item], Result], items: Sequence[Item], workers: int) -> Iterator[Result]:
    """Yield results in order of the items, up to the end or to the item on which a process died."""
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
    """Start processes that ignore Ctrl-C until :func:`_take_interrupts`; this process handles it afterwards.

    A terminal sends it to all processes at once, and a process that still imports would print a traceback.
    """
    resource_tracker.ensure_running()  # otherwise it starts below and unblocks the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _take_interrupts() -> None:
    """Let Ctrl-C end this worker without output; the parent process prints the message."""
    if signal.SIGINT in signal.sigpending():
        os._exit(_INTERRUPTED)
    signal.signal(signal.SIGINT, _end)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _end(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(_INTERRUPTED)


def _pool(workers: int) -> ProcessPoolExecutor:
    """Create a pool whose processes do not run the caller's script and end without output on Ctrl-C."""
    return ProcessPoolExecutor(workers, mp_context=spawn_context(), initializer=_take_interrupts)


def _run_alone(work: Callable[[Item], Result], item: Item) -> Result | WorkerDied:
    """Return the result of one item, computed in a process of its own."""
    started = False
    with _pool(1) as pool:
        try:
            _submit(pool, _start, work).result()
            started = True
            return _submit(pool, work, item).result()
        except BrokenProcessPool as error:
            if started:
                return WorkerDied()
            raise EnvironmentFaultError(
                "a worker process died before it started its work; no input file is the cause: "
                "free memory, or use fewer workers (workers=1 starts no process)"
            ) from error


def _submit(pool: ProcessPoolExecutor, work: Callable[[Item], Result], item: Item) -> Future[Result]:
    """Submit an item; report a pool that cannot start a process as broken."""
    try:
        with _interrupts_held():
            return pool.submit(work, item)
    except OSError as error:
        raise BrokenProcessPool("no process could be started") from error


def _start(_work: object) -> None:
    """First task of a worker: succeeds if the process could start and import the function."""


class _Popen(popen_spawn_posix.Popen):
    """Starts a process without the path of the caller's script."""

    def _launch(self, process_obj: BaseProcess) -> None:
        with _STARTING:
            original, caller = spawn.get_preparation_data, threading.get_ident()

            def without_script(name: str) -> dict[str, Any]:
                data = original(name)
                if threading.get_ident() != caller:
                    return data  # another thread of the caller starts a process at the same time
                return {key: value for key, value in data.items() if not key.startswith("init_main_from")}

            spawn.get_preparation_data = without_script
            try:
                super()._launch(process_obj)  # type: ignore[misc]  # missing in typeshed
            finally:
                spawn.get_preparation_data = original


class _Process(SpawnProcess):
    @staticmethod
    def _Popen(process_obj: BaseProcess) -> popen_spawn_posix.Popen:  # noqa: N802  (the library's name)
        return _Popen(process_obj)


class _Context(SpawnContext):
    Process = _Process
