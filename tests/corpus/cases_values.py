"""Bad inputs: rescale, units, wraps, padding, multi-frame objects and transfer syntaxes."""

from pathlib import Path

import numpy as np
from case_list import case, one
from dicoms import frame_groups, head
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import JPEG2000
from transfer_syntaxes import SYNTAXES, write_encoded


@case(27, "no rescale", "no_rescale")
def _(folder: Path) -> None:
    one(folder, RescaleSlope=None, RescaleIntercept=None)


@case(27, "a modality LUT in place of a rescale", "modality_lut")
def _(folder: Path) -> None:
    dataset = dcmread(one(folder, RescaleSlope=None, RescaleIntercept=None))
    table = Dataset()
    table.add_new("LUTDescriptor", "US", [4, 0, 16])
    table.add_new("LUTData", "OW", bytes(8))
    table.ModalityLUTType = "HU"
    dataset.ModalityLUTSequence = [table]
    dataset.save_as(folder / f"{folder.name}_a.dcm")


@case(28, "another unit than HU", "not_hu", read=2)
def _(folder: Path) -> None:
    for i, unit in enumerate(("OD", "US", "HU")):
        one(folder, unit, z=5.0 * i, RescaleType=unit)


@case(28, "a slope of 1e-300", "bad_rescale")
def _(folder: Path) -> None:
    one(folder, RescaleSlope="1e-300")


@case(28, "slope 0, or absurd HU", "bad_rescale", "implausible_hu")
def _(folder: Path) -> None:
    one(folder, "a", RescaleSlope=0)
    one(folder, "b", RescaleIntercept=20000)


@case(29, "12-bit wrap", read=1, flags="wrap_suspected")
def _(folder: Path) -> None:
    hu = head(0.0)
    values = np.where(hu < 0, hu + 4096, hu).astype(np.uint16)
    about = {"PixelRepresentation": 0, "BitsStored": 12, "HighBit": 11, "RescaleIntercept": 0}
    one(folder, hu=hu, PixelData=values.tobytes(), **about)


@case(29, "12-bit header, air clipped to 0, metal at 3500: no wrap", read=1, flags="wrap_suspected")
def _(folder: Path) -> None:
    hu = np.clip(head(0.0), 0, None)
    hu[30:34, 30:34] = 3500
    about = {"PixelRepresentation": 0, "BitsStored": 12, "HighBit": 11, "RescaleIntercept": 0}
    one(folder, hu=hu, PixelData=hu.astype("<u2").tobytes(), **about)


@case(30, "padding value", read=1)
def _(folder: Path) -> None:
    values = (head(0.0) + 1024).astype("<i2")
    values[:8] = -2000
    one(folder, PixelPaddingValue=-2000, PixelData=values.tobytes())


@case(31, "MONOCHROME1", read=1)
def _(folder: Path) -> None:
    one(folder, PhotometricInterpretation="MONOCHROME1")


@case(32, "multi-valued and missing windows", read=2)
def _(folder: Path) -> None:
    one(folder, "a", WindowCenter=["40", "80", "600"], WindowWidth=["80"])
    one(folder, "b", z=5.0, WindowCenter=None, WindowWidth=None)


@case(33, "enhanced multi-frame CT", read=4)
def _(folder: Path) -> None:
    frames = [head(5.0 * i) for i in range(4)]
    dataset = dcmread(one(folder, ImagePositionPatient=None, ImageOrientationPatient=None, RescaleSlope=None))
    del dataset.RescaleIntercept, dataset.PixelSpacing
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2.1"
    dataset.NumberOfFrames = 4
    dataset.PixelData = (np.stack(frames) + 1024).astype("<i2").tobytes()
    for keyword, items in frame_groups(4).items():
        setattr(dataset, keyword, items)
    dataset.save_as(folder / f"{folder.name}_a.dcm", enforce_file_format=True)


@case(34, "JPEG Lossless, JPEG-LS, JPEG 2000, HTJ2K, RLE, deflated", read=6)
def _(folder: Path) -> None:
    for i, (name, syntax) in enumerate(SYNTAXES.items()):
        if name != "big_endian":
            about = {"study": f"ID_study_{folder.name}", "patient": f"ID_patient_{folder.name}"}
            write_encoded(folder, f"{folder.name}_{name}", syntax, z=5.0 * i, **about)


@case(35, "lossy", read=1, flags="lossy")
def _(folder: Path) -> None:
    path = write_encoded(
        folder,
        f"{folder.name}_a",
        SYNTAXES["jpeg_2000"],
        study=f"ID_study_{folder.name}",
        patient=f"ID_patient_{folder.name}",
        LossyImageCompression="01",
    )
    dataset = dcmread(path)
    dataset.file_meta.TransferSyntaxUID = JPEG2000
    dataset.save_as(path)


@case(36, "big endian", read=1)
def _(folder: Path) -> None:
    about = {"study": f"ID_study_{folder.name}", "patient": f"ID_patient_{folder.name}"}
    write_encoded(folder, f"{folder.name}_a", SYNTAXES["big_endian"], **about)
