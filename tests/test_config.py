"""The config: every value bounded, every fault named with its key, YAML read under bounds."""

import contextlib
import io
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from rsna_seq.__main__ import main
from rsna_seq.config import Config, dump_config, load_config
from rsna_seq.errors import UsageError
from rsna_seq.settings.types import Section


def command(*words: str) -> tuple[int, str]:
    """Run the command line in this process: exit code and all that it printed."""
    printed, old = io.StringIO(), sys.argv
    sys.argv = ["rsna-seq", *words]
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            main()
    except SystemExit as end:
        return int(end.code or 0), printed.getvalue()
    finally:
        sys.argv = old
    raise AssertionError("main always exits")


def _keys(section: Section, path: str = "") -> Iterator[tuple[str, Any]]:
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, Section):
            yield from _keys(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", value


NUMBERS = [key for key, value in _keys(Config()) if type(value) in {int, float}]
OPTIONAL = ["limit", "embed.size"]


@pytest.mark.parametrize("key", NUMBERS + OPTIONAL)
def test_every_number_is_finite_bounded_at_both_ends_and_no_bool(key: str) -> None:
    for value in (
        ".nan",
        ".inf",
        "-.inf",
        "-1e9",
        "1e300",
        "9" * 400,
        "-1",
        "true",
        "no",
        "[1]",
        "{}",
        "x",
        "'1e400'",
    ):
        with pytest.raises(UsageError, match=rf"(?m)^  {key}: ") as error:
            load_config(None, [f"{key}={value}"])
        assert len(str(error.value)) < 300


REFUSED = [
    "=", "a..b=1", "=3", ".=1", "embed.=1", "seed", "embed=3", "embed=", "embed=[1]", "a=1", "embed.epoch=1",
    "seed.x=1", "seed=-1", "seed=4294967296", "seed=1.5", "embed.windows=[]", "embed.windows=[[40, 0]]",
    "embed.windows=[[40, -80]]", "embed.windows=[[.nan, 80]]", "embed.windows=[[40, .inf]]",
    "embed.windows=[40, 80]", "embed.windows=[[1e9, 80]]",
    "embed.size=0", "embed.folds=[]", "embed.folds=[-1]", "embed.folds=[0, 0]",
    "embed.backbone=''", 'embed.backbone="a\\0b"', 'index.series="\\ud800"', 'data.root="a\\0"',
    "data.root=''", 'embed.pretrained="\\0"', "device=nonsense",
    "device=cuda:", "device=cuda:x", "device=meta", "device=CPU",
    "stack.sources=[]", "stack.sources=[cnn, cnn]", "cache.thin_mm=6", "predict.prob_clip=1e-9",
    "data.stage=3",
    "cache.crop=2", "seed=!!python/object:os.system x", "seed=!!int x", "seed=!x 1", "seed=&a [*a]",
    "seed=*a", "seed={a: 1, a: 2}",
    "seed=" + "[" * 3000, "seed=[" + "1," * 11_000 + "]", "seed=" + "x" * 300_000,
    "seed={? [1]: 2}", "seed=2019-13-45", "seed=0o9", "seed=1:99", "seed='", "seed=\x01", "seed=%",
]  # fmt: skip


@pytest.mark.parametrize("override", REFUSED, ids=lambda word: word[:40].encode("unicode_escape").decode())
def test_an_override_that_is_wrong_is_exit_2_in_few_words(override: str) -> None:
    code, printed = command("config", override)
    assert code == 2, printed
    assert "Traceback" not in printed
    assert len(printed) < 600


def _laughs(levels: int, wide: int) -> str:
    lines = ["a0: &a0 [x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * wide)}]" for i in range(1, levels)]
    return "\n".join(lines)


FILES: dict[str, tuple[bytes, str]] = {
    "a list": (b"- 1\n", "a mapping of sections"),
    "a word": (b"seed\n", "a mapping of sections"),
    "latin-1": (b"seed: 1\ndata:\n  root: caf\xe9\n", "line 3 is not UTF-8"),
    "binary": (bytes(range(256)), "not UTF-8|not readable as YAML"),
    "a NUL byte": (b"seed: 1\0", "not readable as YAML"),
    "a key twice": (b"seed: 1\nembed:\n  epochs: 1\n  epochs: 2\n", "line 4: duplicate key epochs"),
    "a section twice": (b"embed: {epochs: 1}\nembed: {batch: 2}\n", "duplicate key embed"),
    "a tag": (b"seed: !!python/object/apply:os.system [ls]\n", r"line 1: a tag \(!\)"),
    "many aliases": (_laughs(9, 9).encode(), "aliases"),
    "deep aliases": (_laughs(30, 1).encode(), "no such key"),
    "an endless alias": (b"seed: &a\n  - *a\n", "line 2: .* is inside the value"),
    "an unknown alias": (b"seed: *a\n", "line 1"),
    "nested": (b"seed: " + b"[" * 5000, "nested deeper"),
    "large": (b"# " + b"x" * 300_000, "larger than 256 KiB"),
    "two documents": (b"seed: 1\n---\nseed: 2\n", "line 2"),
    "a tab": (b"embed:\n\tepochs: 1\n", "line 2"),
    "a huge number": (b"seed: " + b"9" * 5000, "seed|number"),
    "numbers for keys": (b"1: 2\nnull: 3\n", "1"),
}


@pytest.mark.parametrize("case", FILES)
def test_a_file_that_is_no_config_is_exit_2_and_says_why(tmp_path: Path, case: str) -> None:
    content, message = FILES[case]
    file = tmp_path / "my.yaml"
    file.write_bytes(content)
    code, printed = command("config", "--config", str(file))
    assert code == 2, printed
    assert "Traceback" not in printed
    assert len(printed) < 3000
    with pytest.raises(UsageError, match=message):
        load_config(file)


def test_a_config_that_is_a_folder_missing_or_no_path_is_exit_2(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "none.yaml", tmp_path / "file" / "x.yaml", tmp_path / ("x" * 300)):
        code, printed = command("config", "--config", str(path))
        assert code == 2, printed
        assert "Traceback" not in printed


def test_what_people_write_stays_allowed(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_bytes(
        b"\xef\xbb\xbfsequence: &fit\n  lr: 1e-3\n  epochs: 3\n"
        b"embed:\n  <<: *fit\n  epochs: 4\ndata: {root: 2019-01-01}\n"
    )
    config = load_config(file, ["embed={batch_size: 8}", "device=cuda:1", "data.root=.", "embed.folds=[7]"])
    assert (config.embed.epochs, config.embed.batch_size, config.embed.lr, config.sequence.epochs) == (
        4,
        8,
        1e-3,
        3,
    )
    assert config.data.root == Path()
    (tmp_path / "empty.yaml").write_text("# nothing\n", encoding="utf-8")
    assert load_config(tmp_path / "empty.yaml") == Config()


SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from(["auto", "cuda:0", "phantom", ".nan", "1e999", "&a [*a]", "!!int x", "2001-01-40"])
)  # fmt: skip
VALUES = st.recursive(
    SCALARS, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=4), v, max_size=3)
)
KEYS = st.sampled_from([key for key, _ in _keys(Config())] + ["embed", "data", "a..b", "", "x.y"])


def _holds(code: int, printed: str) -> None:
    assert code in {0, 2}, printed
    assert "Traceback" not in printed
    if code == 0:
        assert all(
            math.isfinite(v)
            for _, v in _keys(Config.model_validate(yaml.safe_load(printed)))
            if type(v) is float
        )


@given(
    KEYS,
    SCALARS.map(str) | VALUES.map(lambda v: yaml.safe_dump(v, default_flow_style=True).strip()),
    st.text(max_size=5),
)
@settings(max_examples=60)
def test_any_override_is_taken_or_refused(key: str, value: str, noise: str) -> None:
    for word in (f"{key}={value}", f"{key}{noise}={value}", f"k{noise}"):
        _holds(*command("config", "--", word))


@given(
    st.dictionaries(KEYS | st.text(max_size=4), VALUES, max_size=4),
    st.binary(max_size=12),
    st.integers(0, 400),
)
@settings(max_examples=40)
def test_any_file_is_taken_or_refused(
    tmp_path_factory: pytest.TempPathFactory, tree: dict[str, Any], noise: bytes, at: int
) -> None:
    text = yaml.safe_dump(tree, allow_unicode=True).encode("utf-8", "replace")
    file = tmp_path_factory.getbasetemp() / "drawn.yaml"
    for content in (text, text[:at] + noise + text[at:], dump_config(Config()).encode()[:at] + noise):
        file.write_bytes(content)
        _holds(*command("config", "--config", str(file)))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("embed.batch=8", "embed.batch_size"),
        ("sequence.project=16", "sequence.projection_dim"),
        ("stack.share=0.3", "stack.blend_weight"),
        ("predict.clip=0.001", "predict.prob_clip"),
        ("embed.clip=1", "embed.max_grad_norm"),
    ],
)
def test_a_former_key_is_an_error_that_names_the_new_one(old: str, new: str) -> None:
    with pytest.raises(UsageError, match=rf"was renamed to {new}"):
        load_config(None, [old])
    section, _, key = new.partition(".")
    assert key in getattr(load_config(), section).model_dump()
