"""Marks around the requests for data of a loop: its rate, and the share of its time that it waits."""

import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

Item = TypeVar("Item")


class Marks:
    """Times before and after each request for a batch or a study, and the waits of the host for the GPU."""

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"
        self.before: list[Any] = []
        self.after: list[Any] = []
        self.sizes: list[int] = []
        self.waits: list[int] = []
        """Number of waits of the host for the GPU before each request."""
        self.caught: list[warnings.WarningMessage] = []

    def around(self, items: Iterable[Item], size: Callable[[Item], int]) -> Iterator[Item]:
        """Iterate and mark; the work on an item lies between its mark and that of the next request."""
        iterator = iter(items)
        while True:
            self.waits.append(sum("synchronizing CUDA" in str(w.message) for w in self.caught))
            self.before.append(self._now())
            try:
                item = next(iterator)
            except StopIteration:
                return
            self.after.append(self._now())
            self.sizes.append(size(item))
            yield item

    @contextmanager
    def counting_waits(self) -> Iterator[None]:
        """Let torch report each operation that makes the host wait for the GPU."""
        with warnings.catch_warnings(record=True) as self.caught:
            warnings.simplefilter("always")
            if self.cuda:
                torch.cuda.set_sync_debug_mode("warn")
            try:
                yield
            finally:
                if self.cuda:
                    torch.cuda.set_sync_debug_mode("default")

    def _now(self) -> Any:
        if not self.cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _seconds(self, start: Any, end: Any) -> float:
        return float(start.elapsed_time(end)) / 1000 if self.cuda else end - start

    def figures(self, warm: int) -> dict[str, float]:
        """Return rate, share of the time spent waiting for data, and waits of the host per item.

        Args:
            warm: Number of items at the start that are not counted.
        """
        if self.cuda:
            torch.cuda.synchronize()
        total = self._seconds(self.before[warm], self.before[-1])
        pairs = zip(self.before[warm:-1], self.after[warm:], strict=True)
        return {
            "slices_per_s": sum(self.sizes[warm:]) / total,
            "waiting_share": sum(self._seconds(a, b) for a, b in pairs) / total,
            "host_waits_per_item": (self.waits[-1] - self.waits[warm]) / len(self.sizes[warm:]),
        }
