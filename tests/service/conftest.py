"""What the tests of the service share: a loaded model, settings that make it quick, an Orthanc server."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "clinic"))
from servers import OrthancServer, own_network
from studies import QUICK

from rsna_seq.config import Config, load_config
from rsna_seq.service.scorer import Scorer


@pytest.fixture(scope="session")
def quick() -> Config:
    """A config with which a study is complete after a fifth of a second."""
    return load_config(None, QUICK)


@pytest.fixture(scope="session")
def scorer(quick: Config) -> Scorer:
    """The model in the package, loaded once."""
    return Scorer(quick)


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OrthancServer]:
    """An Orthanc server in a network of its own, in which the tests of the module run as well."""
    with own_network(), OrthancServer(tmp_path_factory.mktemp("orthanc")) as server:
        yield server
