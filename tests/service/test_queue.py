"""The queue: each study once, states that survive, tries that are counted, files that are not queues."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rsna_seq.errors import IntegrityError
from rsna_seq.service.jobs import Job, State, digest_of, signature_of
from rsna_seq.service.queue import QUEUE, Queue


@pytest.fixture
def queue(tmp_path: Path) -> Queue:
    return Queue(tmp_path / QUEUE)


def _stable(queue: Queue, study: str, digest: str = "d", **options: object) -> int:
    return queue.complete(("s", study, study), digest, [Path("/in")], **options)[0]  # type: ignore[arg-type]


def _claimed(queue: Queue) -> Job:
    job = queue.claim()
    assert job is not None
    return job


def test_a_study_passes_its_states_in_order(queue: Queue) -> None:
    number = queue.arriving("s", "k", "1.2")
    assert queue.arriving("s", "k", "1.2") == number
    assert queue.counts()["received"] == 1
    assert queue.claim() is None
    assert queue.complete(("s", "k", "1.2"), "d", [Path("/a"), Path("/b")]) == (number, True)
    job = _claimed(queue)
    assert (job.id, job.state, job.tries, job.files) == (number, State.SCORING, 1, (Path("/a"), Path("/b")))
    assert queue.waiting() == 1
    queue.answered(number, Path("answers/1"), to_send=True)
    found = queue.next_to_send()
    assert found is not None
    assert (found.id, found.answer, queue.unsent()) == (number, Path("answers/1"), 1)
    queue.sent(number)
    assert (queue.unsent(), queue.waiting(), queue.counts()["sent"]) == (0, 0, 1)


def test_the_same_instances_are_answered_once_and_new_ones_again(queue: Queue) -> None:
    first = _stable(queue, "1.2")
    assert _stable(queue, "1.2") == first
    assert _stable(queue, "1.2", "with one more") != first
    assert _stable(queue, "1.3") != first
    assert queue.counts()["stable"] == 3


def test_instances_that_failed_are_scored_again_when_they_come_again(queue: Queue) -> None:
    first = _stable(queue, "1.2")
    _claimed(queue)
    queue.failed(first, "no readable CT slice")
    assert queue.complete(("s", "k2", "1.2"), "d", [Path("/new")]) == (first, True)
    assert len(queue.jobs(9)) == 1
    found = _claimed(queue)
    assert (found.reason, found.tries, found.files) == (None, 1, (Path("/new"),))


def test_a_try_is_counted_before_it_begins_and_the_last_one_fails(tmp_path: Path) -> None:
    for tries in (1, 2, 3):
        queue = Queue(tmp_path / QUEUE)  # what a process finds that starts after another was killed
        failed = queue.recover(3)
        assert failed == []
        if tries == 1:
            _stable(queue, "1.2")
        assert _claimed(queue).tries == tries
    queue = Queue(tmp_path / QUEUE)
    (job,) = queue.recover(3)
    assert job.state == State.FAILED
    assert "3 times" in (job.reason or "")
    assert queue.claim() is None


def test_a_study_that_is_tried_again_waits_and_lets_others_pass(queue: Queue) -> None:
    first, second = _stable(queue, "1.2"), _stable(queue, "1.3")
    queue.again(_claimed(queue).id, State.STABLE, "the disk is full", 0.0)
    assert _claimed(queue).id == second
    assert _claimed(queue).id == first
    queue.again(first, State.STABLE, "the disk is full", 60.0)
    assert queue.claim() is None
    assert queue.waiting() == 2


def test_marks_are_kept_and_set_with_the_study(tmp_path: Path) -> None:
    queue = Queue(tmp_path / QUEUE)
    assert queue.mark("s", "k") is None
    _stable(queue, "1.2", mark=("s", "k", "seen"))
    queue.close()
    assert Queue(tmp_path / QUEUE).mark("s", "k") == "seen"


def test_studies_that_were_arriving_are_found_again_by_their_source(queue: Queue) -> None:
    queue.arriving("s", "k", "1.2")
    queue.arriving("other", "k", "1.2")
    queue.forget_arriving("s")
    assert [job.source for job in queue.jobs(10)] == ["other"]


def test_another_file_is_not_taken_for_a_queue(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("this is no database, and long enough " * 10, encoding="utf-8")
    base = sqlite3.connect(tmp_path / "other")
    base.execute("CREATE TABLE mine(x)")
    base.close()
    for name in ("text", "other"):
        with pytest.raises(IntegrityError, match="not a queue"):
            Queue(tmp_path / name)
    assert sqlite3.connect(tmp_path / "other").execute("SELECT name FROM sqlite_master").fetchall() == [
        ("mine",)
    ]


def test_the_digest_depends_on_bytes_and_not_on_names(tmp_path: Path) -> None:
    for name, data in (("a", b"1"), ("b", b"2"), ("c", b"1"), ("d", b"3")):
        (tmp_path / name).write_bytes(data)
    a, b, c, d = (tmp_path / name for name in "abcd")
    assert digest_of([a, b]) == digest_of([b, c])
    assert digest_of([a, b]) != digest_of([a, d])
    assert signature_of([("a", 1), ("b", 2)]) == signature_of([("b", 2), ("a", 1)])
    assert signature_of([("a", 1)]) != signature_of([("a", 2)])


def test_processes_that_open_a_new_queue_at_once_agree_on_it(tmp_path: Path) -> None:
    for turn in range(5):
        file = tmp_path / str(turn) / QUEUE
        file.parent.mkdir()
        with ThreadPoolExecutor(8) as threads:
            queues = list(threads.map(lambda _, file=file: Queue(file), range(8)))
        numbers = {queue.arriving("s", "k", "1.2") for queue in queues}
        assert numbers == {1}
        for queue in queues:
            queue.close()
