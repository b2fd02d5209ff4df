"""Frames that headers declare, before they are allocated: the implausible are refused, and no good one."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, JPEGLossless, RLELossless

from rsna_seq.errors import EnvironmentFaultError
from rsna_seq.imaging import frame_limits
from rsna_seq.imaging.frame_limits import available_bytes, frames_to_refuse, must_be_plausible_frame
from rsna_seq.reasons import ExclusionError, Reason

GIB = 1 << 30
Frame = tuple[int, int, int, str]
FRAMES = st.tuples(
    st.sampled_from([64, 512, 1024, 2048, 4096, 8192]),
    st.sampled_from([64, 512, 1024, 2048, 4096, 8192]),
    st.integers(1, 1 << 28),
    st.sampled_from(
        [str(ExplicitVRLittleEndian), str(JPEG2000Lossless), str(JPEGLossless), str(RLELossless)]
    ),
)


def _study(frames: list[Frame]) -> pl.DataFrame:
    return pl.DataFrame(
        [
            {
                "study": "S",
                "file": f"{i}",
                "rows": r,
                "columns": c,
                "file_size": size,
                "transfer_syntax": syntax,
            }
            for i, (r, c, size, syntax) in enumerate(frames)
        ]
    )


def _bytes(frames: list[Frame]) -> np.ndarray:
    return np.array([2 * r * c for r, c, _, _ in frames])


@given(st.lists(FRAMES, min_size=1, max_size=40), st.integers(0, 64 * GIB))
def test_what_is_kept_fits_and_what_has_bytes_to_match_is_kept(frames: list[Frame], available: int) -> None:
    wanted, usable = _bytes(frames), 0.75 * available
    matched = np.array([2 * r * c <= 16 * size for r, c, size, _ in frames])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frame_limits, "available_bytes", lambda: available)
        try:
            refused = frames_to_refuse(_study(frames))
        except EnvironmentFaultError:
            usual = np.array([2 * r * c <= 64 * size for r, c, size, _ in frames])
            assert wanted[usual].sum() > usable
            return
    kept = np.array([i not in refused for i in range(len(frames))])
    assert kept[matched].all()
    assert wanted[kept].sum() <= max(usable, 512 << 20)
    assert {error.reason for error in refused.values()} <= {Reason.FRAME_IMPLAUSIBLE}
    for i in range(len(frames)):
        try:
            must_be_plausible_frame(_study(frames).row(i, named=True))
        except ExclusionError:
            assert not kept[i]


def test_the_good_frames_of_a_study_stay_when_others_ask_for_all_memory() -> None:
    good, bad = (512, 512, 180_000, str(JPEG2000Lossless)), (2048, 2048, 900, str(JPEG2000Lossless))
    refused = frames_to_refuse(_study([good] * 40 + [bad] * 2000))
    assert min(refused) >= 40
    kept = 40 * _bytes([good])[0] + (2000 - len(refused)) * _bytes([bad])[0]
    assert kept <= 4 * GIB


def test_a_multi_frame_file_is_shared_by_its_frames() -> None:
    frames = _study([(2048, 2048, 900_000, str(JPEG2000Lossless))] * 600)
    assert frames_to_refuse(frames.with_columns(file=pl.lit("one"))) != {}
    assert frames_to_refuse(frames) == {}


def test_available_memory_is_below_every_limit(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:  # type: ignore[no-untyped-def]
    before = available_bytes()
    assert 0 < before <= frame_limits._machine_bytes() + (64 << 20)
    for name, value in {"limit": 5 << 20, "used": 3 << 20}.items():
        (tmp_path / name).write_text(f"{value}\n", encoding="ascii")
    (tmp_path / "memory.stat").write_text("anon 1\ncached 1048576\n", encoding="ascii")
    files = {c: (str(tmp_path), "limit", "used", "cached") for c in ("", "memory")}
    monkeypatch.setattr(frame_limits, "_GROUP_FILES", files)
    assert available_bytes() == 3 << 20
