"""DICOM files of one CT, written by libraries that are not ours; run in an environment of their own.

python tests/foreign/writers.py by-gdcm FOLDER SOURCE...
"""

import copy
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

_NAMES = ("ct.0.dcm", "CT_small.dcm")
"""Uncompressed CT slices of the packages dicompyler-core and pydicom."""


def sources(folders: list[Path]) -> list[Path]:
    """The slices that are written again.

    Raises:
        FileNotFoundError: None of the folders holds one.
    """
    found = [path for folder in folders for name in _NAMES for path in sorted(folder.rglob(name))]
    if not found:
        raise FileNotFoundError(f"no {' or '.join(_NAMES)} below {', '.join(map(str, folders))}")
    return found


def by_gdcm(folder: Path, slices: list[Path]) -> None:
    """Every slice in every transfer syntax that GDCM writes."""
    import gdcm

    kinds = (
        "ImplicitVRLittleEndian",
        "ExplicitVRLittleEndian",
        "ExplicitVRBigEndian",
        "DeflatedExplicitVRLittleEndian",
    )
    kinds += (
        "JPEGLosslessProcess14_1",
        "JPEGLosslessProcess14",
        "JPEGLSLossless",
        "JPEG2000Lossless",
        "RLELossless",
    )
    for path in slices:
        for kind in kinds:
            reader = gdcm.ImageReader()
            reader.SetFileName(str(path))
            change = gdcm.ImageChangeTransferSyntax()
            if not reader.Read():
                raise RuntimeError(f"{path}: not read by GDCM")
            change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, kind)))
            change.SetInput(reader.GetImage())
            if not change.Change():
                continue  # it does not write this one
            writer = gdcm.ImageWriter()
            writer.SetFileName(str(folder / f"{path.stem}_{kind}.dcm"))
            named = gdcm.Anonymizer()  # each file is an image and a study of its own
            named.SetFile(reader.GetFile())
            for element in (0x0008, 0x0018), (0x0020, 0x000D), (0x0020, 0x000E):
                named.Replace(gdcm.Tag(*element), generate_uid())
            writer.SetFile(named.GetFile())
            writer.SetImage(change.GetOutput())
            writer.Write()


def by_simpleitk(folder: Path, slices: list[Path]) -> None:
    """HU as integers, plain and compressed, and as real numbers with a slope that is not 1."""
    import SimpleITK as sitk  # noqa: N813

    for path in slices:
        image = sitk.ReadImage(str(path))
        for number, (kind, slope, compressor) in enumerate(
            (
                (sitk.sitkInt16, 1, ""),
                (sitk.sitkInt16, 1, "JPEG2000"),
                (sitk.sitkFloat32, 0.5, ""),
                (sitk.sitkInt16, 1, "RLE"),
            )
        ):
            out = sitk.Cast(image[:, :, 0], kind)
            told = {
                "0008|0060": "CT",
                "0020|000d": generate_uid(),
                "0020|000e": generate_uid(),
                "0010|0020": "p",
            }
            told |= {
                "0028|1052": "-1024",
                "0028|1053": str(slope),
                "0020|0032": "0\\0\\0",
                "0020|0037": "1\\0\\0\\0\\1\\0",
            }
            told |= {
                "0008|0008": "ORIGINAL\\PRIMARY\\AXIAL",
                "0018|0050": "5",
                "0028|0100": "16",
                "0028|0101": "16",
            }
            told |= {"0028|0102": "15", "0028|0103": "1"}
            for tag, value in told.items():
                out.SetMetaData(tag, value)
            writer = sitk.ImageFileWriter()
            writer.KeepOriginalImageUIDOn()
            writer.SetFileName(str(folder / f"{path.stem}_{number}.dcm"))
            if compressor:
                writer.UseCompressionOn()
                writer.SetCompressor(compressor)
            writer.Execute(out)


def by_highdicom(folder: Path, slices: list[Path]) -> None:
    """Series of five slices each as one legacy converted enhanced CT object."""
    from highdicom.legacy import LegacyConvertedEnhancedCTImage

    for number, path in enumerate(slices):
        one = dcmread(path)
        series = [_moved(one, at) for at in range(5)]
        enhanced = LegacyConvertedEnhancedCTImage(series, generate_uid(), 1, generate_uid(), 1)
        enhanced.save_as(folder / f"{number}.dcm")


def _moved(one: Dataset, at: int) -> Dataset:
    """A slice some millimetres above, its pixels shifted so that no two are alike."""
    made = copy.deepcopy(one)
    made.SOPInstanceUID = generate_uid()
    x, y, z = map(float, one.ImagePositionPatient)
    made.ImagePositionPatient, made.InstanceNumber = [x, y, z + 5 * at], at + 1
    stored = np.frombuffer(one.PixelData, dtype=np.int16).reshape(one.Rows, one.Columns)
    made.PixelData = np.roll(stored, at, axis=0).tobytes()
    for name in (
        "PatientName",
        "PatientBirthDate",
        "PatientSex",
        "AccessionNumber",
        "ReferringPhysicianName",
    ):
        setattr(made, name, getattr(one, name, None) or "")
    return made


def main() -> None:
    """Write one corpus."""
    name, folder, *places = sys.argv[1:]
    writers: dict[str, Any] = {"by-gdcm": by_gdcm, "by-simpleitk": by_simpleitk, "by-highdicom": by_highdicom}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        writers[name](Path(folder), sources([Path(place) for place in places]))


if __name__ == "__main__":
    main()
