"""A sample of the fault matrix; ``make faults`` walks the whole."""

from collections import Counter

import pytest
from dicoms import write_set
from fault_matrix import DAMAGES, Matrix, call, cases
from fault_runs import TINY


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> Matrix:
    """A run, and one of another seed."""
    place = tmp_path_factory.mktemp("matrix")
    data = write_set(place / "data", studies=6, test_studies=0)
    for name, seed in (("run", 0), ("other", 1)):
        code, printed = call(["run", "--out", str(place / name), f"data.root={data}", f"seed={seed}", *TINY])
        assert code == 0, printed
    return Matrix(place / "run", place / "other", data, [*TINY, "seed=0"])


def test_damage_to_any_file_of_a_run_is_noticed_or_without_effect(matrix: Matrix) -> None:
    everything = list(cases(matrix.run, matrix.other))
    files = sorted({case.file for case in everything})
    assert len(files) > 40
    damages, counts = list(DAMAGES), Counter[str]()
    known: dict[str, dict[str, str]] = {}
    for at, file in enumerate(files):
        mine = [case for case in everything if case.file == file and case.damage == damages[at % 3]]
        case = mine[at % len(mine)]
        if case.consumer not in known:
            known[case.consumer] = matrix.baseline(case.consumer)
        outcome = matrix.walk(case, known[case.consumer])
        counts[outcome.kind] += 1
        assert outcome.kind != "silent", (case, outcome.code, outcome.printed)
    assert counts["noticed"] > 15
