"""Small valid files that the fuzzers begin with, made by code."""

import io
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dicoms import head, write_slice
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian

from rsna_seq.imaging.headers.frame import SMALLEST as SIZE
from rsna_seq.labels import CLASSES

_FULL: dict[str, Any] = {
    "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
    "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2",
    "SeriesDescription": "HEAD 5.0",
    "ContrastBolusAgent": "APPLIED",
    "ConvolutionKernel": ["J40s", "3"],
    "InstanceNumber": 7,
    "SliceLocation": -12.5,
    "NumberOfFrames": 1,
    "LossyImageCompression": "00",
    "PixelPaddingValue": -2000,
    "SpecificCharacterSet": "ISO_IR 100",
}


def seeds(target: str) -> list[bytes]:
    """The first inputs of a target.

    Args:
        target: A name of ``targets.TARGETS``.
    """
    return _SEEDS[target]()


def _slices() -> list[bytes]:
    """Slices: explicit, implicit, with all elements that are read, unsigned, deflated, multi-frame."""
    about: list[dict[str, Any]] = [
        {},
        {"implicit": True},
        dict(_FULL),
        {**_FULL, "implicit": True},
        {
            "PixelRepresentation": 0,
            "BitsStored": 12,
            "HighBit": 11,
            "PhotometricInterpretation": "MONOCHROME1",
        },
        {"ImagePositionPatient": None, "SliceLocation": 5, "InstanceNumber": 3},
        {"NumberOfFrames": 2, **_functional_groups(2)},
    ]
    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the competition's identifiers are no UIDs
        folder = Path(name)
        written = [
            write_slice(folder, f"ID_{i}", hu=head(0.0, SIZE), **options).read_bytes()
            for i, options in enumerate(about)
        ]
        written[-1] += bytes(SIZE * SIZE * 2)  # the second frame
        return [*written, _deflated(folder / "ID_0.dcm"), written[0][132:]]


def _functional_groups(frames: int) -> dict[str, list[Dataset]]:
    """Positions and rescale of an enhanced object (PS3.3 C.7.6.16)."""

    def item(**values: Any) -> Dataset:
        made = Dataset()
        for name, value in values.items():
            setattr(made, name, value)
        return made

    shared = item(
        PlaneOrientationSequence=[item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
        PixelMeasuresSequence=[item(PixelSpacing=[2.0, 2.0])],
        PixelValueTransformationSequence=[item(RescaleSlope=1, RescaleIntercept=-1024)],
    )
    each = [item(PlanePositionSequence=[item(ImagePositionPatient=[0, 0, 5 * i])]) for i in range(frames)]
    return {"SharedFunctionalGroupsSequence": [shared], "PerFrameFunctionalGroupsSequence": each}


def _deflated(path: Path) -> bytes:
    from pydicom import dcmread

    dataset = dcmread(path)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    made = io.BytesIO()
    dataset.save_as(made, enforce_file_format=True)
    return made.getvalue()


def _archives() -> list[bytes]:
    """Archives: stored, deflated, one folder deep, LZMA, bzip2, a name that is not ASCII, empty."""
    slices = _slices()
    made = []
    for method, names in (
        (zipfile.ZIP_STORED, ["a.dcm"]),
        (zipfile.ZIP_DEFLATED, ["study/a.dcm", "study/b.dcm"]),
        (zipfile.ZIP_LZMA, ["a.dcm", "readme.txt"]),
        (zipfile.ZIP_BZIP2, ["é/a.dcm"]),
        (zipfile.ZIP_STORED, []),
    ):
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", method) as archive:
            for i, name in enumerate(names):
                archive.writestr(
                    zipfile.ZipInfo(name), slices[i] if name.endswith("dcm") else b"text", method
                )
        made.append(packed.getvalue())
    return made


def _label_files() -> list[bytes]:
    """Label CSVs: long and wide, quoted, with a byte order mark, other line ends, duplicates, empty."""
    long = "ID,Label\n" + "".join(f"ID_a_{c},{i % 2}\n" for i, c in enumerate(CLASSES))
    twice = long + "".join(f"ID_a_{c},{i % 2}\n" for i, c in enumerate(CLASSES))
    wide = f"name,{','.join(CLASSES)}\nID_a,0,0,0,1,0,1\nID_b,0,0,0,0,0,0\n"
    quoted = wide.replace("ID_a", '"ID_""a"')
    return [
        *(text.encode() for text in (long, twice, wide, quoted, "", wide.replace("name", "image"))),
        *(text.encode("utf-8-sig") for text in (long, wide)),
        long.replace("\n", "\r\n").encode(),
        wide.replace(",1", ",1.0").encode(),
        wide.replace(",", ";").encode(),
    ]


_SEEDS: dict[str, Callable[[], list[bytes]]] = {
    "headers": _slices,
    "pair": lambda: _slices()[:6],
    "archive": _archives,
    "labels": _label_files,
}
TARGET_NAMES = list(_SEEDS)
