"""Addresses and credentials."""

import pytest

from rsna_seq.errors import UsageError
from rsna_seq.service.addresses import (
    PASSWORD,
    SEND_PASSWORD,
    SEND_USER,
    USER,
    credentials,
    is_address,
    is_loopback,
    parse_address,
)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://127.0.0.1:8042", "http://127.0.0.1:8042"),
        ("https://pacs.example/dicom-web/", "https://pacs.example:443/dicom-web"),
        ("http://[::1]:8042/a", "http://[::1]:8042/a"),
        ("dicom://PACS@10.0.0.1:104", "dicom://PACS@10.0.0.1:104"),
        ("dicom://127.0.0.1", "dicom://RSNA_SEQ@127.0.0.1:11112"),
    ],
)
def test_an_address_is_read_and_written(text: str, url: str) -> None:
    assert is_address(text)
    assert parse_address(text, "--send").url == url


@pytest.mark.parametrize(
    "text",
    [
        *("http://me:secret@host", "https://secret@host", "dicom://A:secret@host"),
        *("ftp://host", "http://", "http://host:99999", "dicom://A_TITLE_THAT_IS_TOO_LONG@host", "/a/folder"),
    ],
)
def test_what_is_no_address_is_refused_without_repeating_a_password(text: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_address(text, "--send")
    assert "secret" not in str(error.value)


def test_a_path_is_no_address() -> None:
    assert not any(map(is_address, ("in", "/data/in", "C:/in", "a://b", "http:/x")))
    assert [is_loopback(h) for h in ("localhost", "127.0.0.5", "::1", "0.0.0.0", "pacs")] == [True] * 3 + [
        False
    ] * 2


def test_a_destination_gets_the_credentials_of_the_source_only_on_the_same_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in (USER, PASSWORD, SEND_USER, SEND_PASSWORD):
        monkeypatch.delenv(name, raising=False)
    assert credentials() is None
    monkeypatch.setenv(USER, "a")
    monkeypatch.setenv(PASSWORD, "b")
    assert credentials() == ("a", "b")
    assert credentials(send=True) is None
    assert credentials(send=True, same=True) == ("a", "b")
    monkeypatch.setenv(SEND_USER, "c")
    assert credentials(send=True, same=True) == ("c", "")
