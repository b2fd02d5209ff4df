"""The packages of the extra ``clinic``, imported only where they are used."""

import importlib.util

from rsna_seq.errors import EnvironmentFaultError


def must_have_highdicom() -> None:
    """Refuse to start work whose results need a package that is not installed.

    Raises:
        EnvironmentFaultError: highdicom is missing.
    """
    if importlib.util.find_spec("highdicom") is None:
        raise EnvironmentFaultError(
            "--dicom: the package highdicom is not installed; run: pip install 'rsna-seq[clinic]'"
        )
