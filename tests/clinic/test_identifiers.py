"""Identifiers: valid UIDs stay, others get one valid UID of their own."""

from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import RE_VALID_UID, UID

from rsna_seq.clinic.identifiers import is_valid_uid, new_uid, valid_uid

TEXT = st.one_of(
    st.text(max_size=70),
    st.from_regex(r"ID_[0-9a-f]{8}", fullmatch=True),
    st.from_regex(r"[0-9]{1,20}(\.[0-9]{1,20}){0,4}", fullmatch=True),
)


@given(TEXT)
def test_every_identifier_becomes_a_valid_uid_and_a_valid_one_stays(text: str) -> None:
    made = valid_uid(text)
    assert is_valid_uid(made)
    assert UID(made).is_valid
    assert (made == text) == is_valid_uid(text)
    assert valid_uid(made) == made == valid_uid(text)


@given(st.from_regex(r"[0-9]{1,5}(\.[0-9]{1,5}){1,9}", fullmatch=True))
def test_what_is_valid_is_what_pydicom_takes(text: str) -> None:
    import re

    assert is_valid_uid(text) == (re.match(RE_VALID_UID, text) is not None and len(text) <= 64)


@given(st.lists(st.text(max_size=5), max_size=4), st.lists(st.text(max_size=5), max_size=4))
def test_new_uids_are_the_same_only_for_the_same_parts(one: list[str], other: list[str]) -> None:
    assert (new_uid(*one) == new_uid(*other)) == (one == other)
