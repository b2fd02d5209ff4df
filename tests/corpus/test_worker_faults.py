"""Workers and decoders that die, hang or are stopped: only their file is lost."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import sleeper
from ledger import handled
from transfer_syntaxes import SYNTAXES, write_encoded

from rsna_seq.imaging.decoder import Decoder
from rsna_seq.parallel.local import WorkerDied, parallel_map
from rsna_seq.reasons import ExclusionError, Reason


def test_a_worker_that_dies_costs_its_item() -> None:
    done = list(parallel_map(sleeper.die_at_three, range(8), 2, apart=True))
    assert [d for d in done if not isinstance(d, WorkerDied)] == [0, 2, 4, 8, 10, 12, 14]
    assert isinstance(done[3], WorkerDied)


def test_a_worker_that_is_killed_once_costs_nothing(tmp_path: Path) -> None:
    jobs = [(i, str(tmp_path)) for i in range(6)]
    assert list(parallel_map(sleeper.die_once, jobs, 2, apart=True)) == [0, 2, 4, 6, 8, 10]


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGSTOP])
def test_a_decoder_that_is_killed_or_stopped_costs_nothing(tmp_path: Path, blow: signal.Signals) -> None:
    path = str(write_encoded(tmp_path, "ID_1", SYNTAXES["jpeg_2000"]))
    decoder = Decoder(wall_s=3)
    first = decoder.decode(path, 0, (64, 64))
    os.kill(decoder.pid or 0, blow)
    np.testing.assert_array_equal(decoder.decode(path, 0, (64, 64)), first)
    decoder.close()


@pytest.mark.parametrize(
    ("limits", "detail"), [({"patience_s": 1e-6}, "CPU time"), ({"wall_s": 0.05}, "no reply within 0.05 s")]
)
def test_a_frame_that_takes_too_long_costs_its_file(
    tmp_path: Path, limits: dict[str, float], detail: str
) -> None:
    path = str(write_encoded(tmp_path, "ID_1", SYNTAXES["jpeg_2000"]))
    if "wall_s" in limits:
        os.mkfifo(path := str(tmp_path / "fifo"))  # what opens it waits
    else:
        noise = np.random.default_rng(0).integers(-1000, 1000, (512, 512))
        path = str(write_encoded(tmp_path, "ID_2", SYNTAXES["jpeg_2000"], hu=noise))
    decoder = Decoder(**limits)
    with pytest.raises(ExclusionError, match=detail) as error:
        decoder.decode(path, 0, (512, 512))
    assert error.value.reason == Reason.DECODE_TIMEOUT
    decoder.close()
    handled(7, "a worker that dies on one file: the file is named, the rest goes on")
    handled(8, "a decoder that hangs: limited in time")


def test_workers_are_spawned() -> None:
    told = list(parallel_map(sleeper.how_started, [1, 2], 2, apart=True))
    assert all("multiprocessing" in str(each) for each in told)
    handled(17, "workers are spawned, never forked")
