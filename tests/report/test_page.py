"""Parts of all pages: counted reasons, escaping, and the strip of a study."""

import numpy as np
import pytest

from rsna_seq.labels import CLASSES
from rsna_seq.report.page import markup, page_text, reasons_of
from rsna_seq.report.strip import study_strip
from rsna_seq.store.tables import QUARANTINE, from_rows


def test_reasons_are_counted_with_their_sentences_and_escaped() -> None:
    lost = [{"file": f"{i}", "action": "quarantined", "reason": "empty_file"} for i in range(3)]
    rows = reasons_of(from_rows([*lost, lost[0] | {"reason": "not_ct"}], QUARANTINE))
    assert [(row["reason"], row["len"]) for row in rows] == [("empty_file", 3), ("not_ct", 1)]
    page = page_text("excluded.html.j2", reasons=[rows[0] | {"sentence": "<b>"}])
    assert "&lt;b&gt;" in page
    assert "<td>3</td>" in page
    assert "<b>" in page_text("excluded.html.j2", reasons=[rows[0] | {"sentence": markup("<b>")}])
    assert "No input was excluded" in page_text("excluded.html.j2", reasons=[])


@pytest.mark.parametrize("slabs", [1, 2, 60])
@pytest.mark.parametrize("labelled", [True, False])
def test_a_strip_is_drawn_of_any_number_of_slabs(slabs: int, labelled: bool) -> None:
    hu = np.zeros((slabs, 16, 16), dtype=np.int16)
    labels = np.ones((slabs, len(CLASSES)), dtype=np.int8) if labelled else None
    p = np.full((slabs, len(CLASSES)), 0.3)
    drawn = study_strip(hu, np.arange(slabs) * 0.6, p, labels)
    assert drawn.startswith('<svg role="img" aria-label="')
    assert drawn.count("<image") == min(slabs, 10)
    assert drawn == study_strip(hu, np.arange(slabs) * 0.6, p, labels)
