"""What the fuzzers found worth keeping, replayed: every input is answered as the law of its target says.

``make fuzz`` draws more; ``python tests/fuzz/fuzz.py TARGET --keep`` adds to the corpus.
"""

from pathlib import Path

import pytest
from seeds import seeds
from targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"
INPUTS = [(file.parent.name, file) for file in sorted(CORPUS.glob("*/*"))]


@pytest.mark.parametrize(("target", "file"), INPUTS, ids=[f"{target}-{file.name}" for target, file in INPUTS])
def test_an_input_that_was_found_is_answered(target: str, file: Path) -> None:
    assert TARGETS[target](file.read_bytes())


@pytest.mark.parametrize("target", TARGETS)
def test_the_first_inputs_are_answered(target: str) -> None:
    outcomes = {TARGETS[target](data) for data in seeds(target)}
    accepted = {"headers": "HU", "pair": "accepted", "archive": "read", "labels": "slices"}[target]
    assert any(accepted in outcome for outcome in outcomes)


def test_the_corpus_stays_small() -> None:
    sizes = [file.stat().st_size for _, file in INPUTS]
    assert {target for target, _ in INPUTS} == set(TARGETS)
    assert sum(sizes) < 300_000
