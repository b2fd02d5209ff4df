"""Coded concepts of the DICOM results (PS3.16), and the private scheme for what no standard dictionary has.

The SNOMED codes 1386000, 50960005, 12738006, 35764002 and 33930006 and the DCM codes are those of pydicom's
dictionary. 21454007, 274100004 and 35486000 are in public use, but not in that dictionary. No code of an
epidural haemorrhage could be confirmed, so it has a private one: a wrong standard code would be worse.
"""

from dataclasses import dataclass

Triple = tuple[str, str, str]
"""Code value, scheme designator, meaning."""

PRIVATE = "99RSNASEQ"
"""Designator of the private scheme; 99 marks private ones (PS3.3 8.2)."""
PRIVATE_NAME = "rsna_seq"
_HEMORRHAGE: Triple = ("50960005", "SCT", "Hemorrhage")


@dataclass(frozen=True)
class Concept:
    """How a class is coded.

    Attributes:
        finding: The finding.
        site: Where it is, or None if the finding says so.
    """

    finding: Triple
    site: Triple | None = None


CONCEPTS: dict[str, Concept] = {
    "epidural": Concept(("EPIDURAL", PRIVATE, "Epidural hemorrhage")),
    "intraparenchymal": Concept(("274100004", "SCT", "Cerebral hemorrhage"), ("12738006", "SCT", "Brain")),
    "intraventricular": Concept(_HEMORRHAGE, ("35764002", "SCT", "Brain ventricle")),
    "subarachnoid": Concept(
        ("21454007", "SCT", "Subarachnoid hemorrhage"), ("33930006", "SCT", "Cranial Subarachnoid Space")
    ),
    "subdural": Concept(("35486000", "SCT", "Subdural hemorrhage")),
    "any": Concept(("1386000", "SCT", "Intracranial hemorrhage")),
}
"""One concept for each class."""

PROBABILITY: Triple = ("122157", "DCM", "Probability")
NO_UNITS: Triple = ("1", "UCUM", "no units")
MAXIMUM: Triple = ("56851009", "SCT", "Maximum")
HEAD_CT: Triple = ("24725-4", "LN", "Head CT")
ARTIFICIAL_INTELLIGENCE: Triple = ("123110", "DCM", "Artificial Intelligence")
OF_INTEREST: Triple = ("113000", "DCM", "Of Interest")
EVALUATIONS: Triple = ("C0034375", "UMLS", "Qualitative Evaluations")
COMMENT: Triple = ("121106", "DCM", "Comment")
