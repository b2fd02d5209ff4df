"""``predict`` of one study after another, with runs that stay loaded; the command gives the same results."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from rsna_seq.clinic.extra import must_have_highdicom
from rsna_seq.clinic.results import STUDIES, Results, read_results
from rsna_seq.clinic.write import LIST, Written, WrittenList
from rsna_seq.config import Config
from rsna_seq.console import silent
from rsna_seq.context import Context
from rsna_seq.errors import EnvironmentFaultError, NothingUsableError
from rsna_seq.models import packaged_model
from rsna_seq.stages.predict import run as stage
from rsna_seq.stages.predict.trained import TrainedRun

RESULT, DICOM = "result", "dicom"
"""Folders of an answer: the output of ``predict``, and that of ``predict --dicom``."""


@dataclass(frozen=True)
class Answer:
    """What was written for one study.

    Attributes:
        results: ``studies.json``.
        dicom: The DICOM objects, or None where they are not written.
    """

    results: Results
    dicom: Written | None

    @property
    def line(self) -> str:
        """The result in a few words."""
        (study,) = self.results.studies
        return f"any {study.findings['any'].probability:.3f}, {study.slices:,} slices"


class Scorer:
    """Scores one study at a time.

    Args:
        cfg: The resolved config; its sections ``predict`` and ``index`` are used, and the device.
        runs: Finished runs or bundles, averaged; none for the model in the package.
        dicom: Write DICOM results; None writes them where the extra ``clinic`` is installed.

    Raises:
        IntegrityError: A run is not finished.
        EnvironmentFaultError: ``dicom`` is asked for, and highdicom is not installed.
    """

    def __init__(self, cfg: Config, runs: Sequence[Path] = (), *, dicom: bool | None = None) -> None:
        self.cfg = cfg
        self.dicom = _writes_dicom() if dicom is None else dicom
        if self.dicom:
            must_have_highdicom()
        ctx = Context.of(cfg)
        # one study is read faster than a process starts; what is there is of a try that did not end
        self._ctx = replace(ctx, workers=1, limit=None, rebuild=True)
        self.trained = [TrainedRun(run, ctx.device) for run in runs or [packaged_model()]]

    @property
    def phantoms_only(self) -> bool:
        """Whether a run was trained on phantoms only."""
        return any(run.phantoms_only for run in self.trained)

    def answer(self, files: Sequence[Path], out: Path) -> Answer:
        """Score one study, and write the results; those of an earlier try are replaced.

        Args:
            files: The files of one study, or one folder that holds nothing else.
            out: Receives the folders ``result`` and ``dicom``.

        Raises:
            NothingUsableError: The study cannot be scored; the message gives the reasons.
            UsageError: A file does not exist any more.
            EnvironmentFaultError: The disk is full.
        """
        result, cfg = out / RESULT, self.cfg
        dicom = out / DICOM if self.dicom else None
        try:
            with silent():
                stage.run(
                    cfg.predict,
                    self._ctx,
                    list(files),
                    self.trained,
                    result,
                    indexing=cfg.index,
                    dicom=dicom,
                )
        except NothingUsableError as error:
            raise NothingUsableError(_reasons(result)) from error
        found = read_results(result)
        if len(found.studies) != 1:
            raise NothingUsableError(f"{len(found.studies):,} studies in place of one")
        return Answer(found, read_written(out))


def read_answer(out: Path) -> Results | None:
    """The results of an answered study; None if they have been deleted.

    Args:
        out: The folder of its answer.

    Raises:
        IntegrityError: They are damaged.
    """
    return read_results(out / RESULT) if (out / RESULT / STUDIES).is_file() else None


def read_written(out: Path) -> Written | None:
    """The DICOM results of an answered study; None if there are none.

    Args:
        out: The folder of its answer.
    """
    listed = out / DICOM / LIST
    if not listed.is_file():
        return None
    found = WrittenList.model_validate_json(listed.read_bytes()).studies
    return found[0] if found else None


def _writes_dicom() -> bool:
    try:
        must_have_highdicom()
    except EnvironmentFaultError:
        return False
    return True


def _reasons(result: Path) -> str:
    """Why nothing of a study can be used, from its ``quarantine.parquet``."""
    table = result / "quarantine.parquet"
    lost = pl.read_parquet(table) if table.is_file() else pl.DataFrame({"reason": []})
    counted = lost.group_by("reason").len().sort("len", "reason", descending=[True, False])
    return "no readable CT slice: " + (", ".join(f"{n:,} {why}" for why, n in counted.rows()) or "no files")
