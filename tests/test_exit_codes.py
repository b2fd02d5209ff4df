"""Exit codes of commands that cannot start."""

from pathlib import Path

import pytest
from commands import cli


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["embed", "embed.epoch=3"], 2, "embed.epoch"),
        (["run", "data.root=/no/such/folder"], 2, "/no/such/folder"),
        (["no-such-command"], 2, "no-such-command"),
        (["cache", "--out", "{tmp}/none"], 6, "run its stage first"),
        (
            ["predict", "{tmp}/in", "--run", "{tmp}/none", "--out", "{tmp}/out"],
            6,
            "no complete artefact here",
        ),
        (["index", "--out", "{tmp}/run", "data.root={tmp}/in"], 4, "no readable CT slice"),
    ],
)
def test_exit_codes(tmp_path: Path, words: list[str], code: int, said: str) -> None:
    (tmp_path / "in").mkdir()
    assert said in cli(*(w.format(tmp=tmp_path) for w in words), code=code).stderr
