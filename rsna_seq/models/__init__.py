"""The model in the package: a bundle that ``predict`` uses where no ``--run`` is given.

It was trained on phantoms only, by ``configs/packaged.yaml`` and ``benchmarks/packaged_model.py``.
"""

from pathlib import Path

from rsna_seq.errors import EnvironmentFaultError

PACKAGED = Path(__file__).with_name("phantom.zip")
"""The bundle."""
PHANTOMS_ONLY = (
    "This model was trained on synthetic studies (phantoms) only and has seen no patient. Its probabilities "
    "rank studies; they do not measure risk. Not for clinical use."
)
"""Notice for results of a run that was trained on phantoms only."""


def packaged_model() -> Path:
    """The path of the bundle in the package.

    Raises:
        EnvironmentFaultError: The package was installed without it.
    """
    if not PACKAGED.is_file():
        raise EnvironmentFaultError(
            f"{PACKAGED}: missing; install the package again, or name a finished run with --run"
        )
    return PACKAGED
