"""Slices in every transfer syntax, made here from one array."""

import zlib
from pathlib import Path

import imagecodecs
import numpy as np
from dicoms import head, write_slice
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGLossless,
    JPEGLSLossless,
    RLELossless,
)

_ENCODERS = {
    JPEGLossless: imagecodecs.ljpeg_encode,
    JPEGLSLossless: imagecodecs.jpegls_encode,
    JPEG2000Lossless: lambda a: imagecodecs.jpeg2k_encode(a, level=0, codecformat="j2k", reversible=True),
    HTJ2KLossless: imagecodecs.htj2k_encode,
}
SYNTAXES = {
    "jpeg_lossless": JPEGLossless,
    "jpeg_ls": JPEGLSLossless,
    "jpeg_2000": JPEG2000Lossless,
    "htj2k": HTJ2KLossless,
    "rle": RLELossless,
    "deflated": DeflatedExplicitVRLittleEndian,
    "big_endian": ExplicitVRBigEndian,
}


def write_encoded(folder: Path, name: str, syntax: UID, **about: object) -> Path:
    """A slice of unsigned 16-bit pixels (HU + 1024) in a transfer syntax."""
    hu = about.pop("hu", None)
    hu = head(float(about.get("z", 0.0))) if hu is None else hu  # type: ignore[arg-type]
    values = (np.asarray(hu) + 1024).astype(np.uint16)
    path = write_slice(
        folder,
        name,
        hu=hu,
        PixelRepresentation=0,
        PixelData=values.tobytes(),
        **about,  # type: ignore[arg-type]
    )
    dataset = dcmread(path)
    dataset.file_meta.TransferSyntaxUID = syntax
    if syntax == RLELossless:
        dataset.compress(RLELossless, values, generate_instance_uid=False)
    elif syntax == ExplicitVRBigEndian:
        swapped = Dataset({element.tag: element for element in dataset})
        swapped.file_meta, swapped.PixelData = dataset.file_meta, values.astype(">u2").tobytes()
        swapped["PixelData"].VR = "OW"
        dcmwrite(path, swapped, enforce_file_format=True, little_endian=False, implicit_vr=False)
        return path
    elif syntax in _ENCODERS:
        dataset.PixelData = encapsulate([_ENCODERS[syntax](values)])
        dataset["PixelData"].VR = "OB"
    dataset.save_as(path, enforce_file_format=True)
    return path


def by_pydicom(path: Path) -> np.ndarray:
    """What pydicom's own decoding says, in HU."""
    return dcmread(path).pixel_array.astype(int) - 1024


def bomb(path: Path, mebibytes: int = 400) -> None:
    """A deflated file of a few hundred kB that grows to so many MiB."""
    write_encoded(path.parent, path.stem, DeflatedExplicitVRLittleEndian)
    data = path.read_bytes()
    meta_end = 144 + int.from_bytes(data[140:144], "little")
    dataset = zlib.decompress(data[meta_end:], -15)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    at = dataset.index(b"\x10\x00\x20\x00LO")  # before the patient's group: an element that never ends
    packed = packer.compress(dataset[:at])
    packed += packer.compress(b"\x09\x00\x10\x10UN\0\0" + (mebibytes << 20).to_bytes(4, "little"))
    for _ in range(mebibytes):
        packed += packer.compress(bytes(1 << 20))
    path.write_bytes(data[:meta_end] + packed + packer.flush())
