"""The C-STORE listener: limits, titles, late slices."""

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from studies import QUICK, send_all, wait_for, write_head

from rsna_seq.config import load_config
from rsna_seq.errors import UsageError
from rsna_seq.service.addresses import Address, parse_address
from rsna_seq.service.queue import QUEUE, Queue
from rsna_seq.service.source import Inbox
from rsna_seq.service.store_source import StoreSource

OUT_OF_RESOURCES = 0xA700


@contextmanager
def _listening(out: Path, *settings: str) -> Iterator[tuple[StoreSource, Address, Queue]]:
    cfg = load_config(None, [*QUICK, *settings]).service
    out.mkdir(exist_ok=True)
    with closing(Queue(out / QUEUE)) as queue:
        here = replace(parse_address("dicom://HERE@127.0.0.1", "SOURCE"), port=0)
        with closing(StoreSource(here, queue, Inbox(out, cfg), cfg)) as source:
            yield source, replace(here, port=source.port), queue


def _settle(source: StoreSource) -> None:
    wait_for(lambda: not source.poll())


def test_late_slices_are_scored_with_the_earlier_ones_until_these_are_deleted(tmp_path: Path) -> None:
    write_head(tmp_path / "in", 1)
    files = sorted((tmp_path / "in").iterdir())
    with _listening(tmp_path / "out") as (source, here, queue):
        send_all(here, files[:3])
        assert source.poll()
        assert [job.state.value for job in queue.jobs(9)] == ["received"]
        _settle(source)
        send_all(here, files)
        _settle(source)
        assert sorted(len(job.files) for job in queue.jobs(9)) == [3, 4]
        send_all(here, files)  # the same once more: nothing is new
        _settle(source)
        assert queue.counts()["stable"] == 2
    with _listening(tmp_path / "out", "service.late_s=0") as (source, _, queue):
        _settle(source)
        assert all(path.is_file() for job in queue.jobs(9) for path in job.files)  # they are not yet scored
        for _ in range(2):
            job = queue.claim()
            assert job is not None
            queue.answered(job.id, Path("x"), to_send=False)
        source.poll()
        assert not any(path.exists() for job in queue.jobs(9) for path in job.files)


def test_a_full_queue_and_a_study_that_is_too_large_are_refused(tmp_path: Path) -> None:
    for n in (1, 2):
        write_head(tmp_path / f"in{n}", n)
    one, two = (sorted((tmp_path / f"in{n}").iterdir()) for n in (1, 2))
    with _listening(tmp_path / "out", "service.max_waiting=1", "service.max_files=3") as (
        source,
        here,
        queue,
    ):
        assert send_all(here, one) == [0, 0, 0, OUT_OF_RESOURCES]
        _settle(source)
        assert send_all(here, two) == [OUT_OF_RESOURCES] * 4
        assert [len(job.files) for job in queue.jobs(9)] == [3]


def test_another_title_is_refused_and_a_taken_port_is_told(tmp_path: Path) -> None:
    write_head(tmp_path / "in", 1)
    with _listening(tmp_path / "out") as (source, here, queue):
        with pytest.raises(AssertionError):
            send_all(replace(here, aet="OTHER"), sorted((tmp_path / "in").iterdir()))
        time.sleep(0.1)
        assert (source.poll(), queue.jobs(9)) == (False, [])
        with pytest.raises(UsageError, match="choose another port"):
            StoreSource(here, queue, Inbox(tmp_path / "out", source.cfg), source.cfg)
