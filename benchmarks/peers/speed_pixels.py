"""DICOM files to pixel files, slice by slice, with other libraries; and the lower bound of the time."""

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from pydicom import config, dcmread

AIR_HU = -1024
WINDOWS = ((40.0, 80.0), (80.0, 200.0), (600.0, 2800.0))
config.settings.reading_validation_mode = config.IGNORE


def write_naive(files: Sequence[Path], out: Path, size: int) -> None:
    """Do as most notebooks: read each file twice, window in float64, write a PNG of the full size."""
    del size
    for file in files:
        header = dcmread(file)
        slope, intercept = float(header.RescaleSlope), float(header.RescaleIntercept)
        hu = dcmread(file).pixel_array * slope + intercept
        shown = []
        for level, width in WINDOWS:
            low = level - width / 2
            image = np.clip(hu, low, low + width)
            shown.append((image - low) / width)
        cv2.imwrite(str(out / f"{file.stem}.png"), (np.stack(shown, axis=-1) * 255).round().astype(np.uint8))


def write_pydicom(files: Sequence[Path], out: Path, size: int) -> None:
    """Use pydicom, OpenCV's area resize and ``np.save``."""
    for file in files:
        header = dcmread(file)
        hu = header.pixel_array.astype(np.float32) * float(header.RescaleSlope) + float(
            header.RescaleIntercept
        )
        hu = cv2.resize(np.maximum(hu, AIR_HU), (size, size), interpolation=cv2.INTER_AREA)
        np.save(out / f"{file.stem}.npy", np.rint(hu).astype(np.int16))


def monai_writer() -> Callable[[Sequence[Path], Path, int], None]:
    """Use MONAI's ``LoadImage`` and ``Resize`` by area, and ``np.save``."""
    from monai.transforms import Compose, EnsureChannelFirst, LoadImage, Resize, ThresholdIntensity

    def write(files: Sequence[Path], out: Path, size: int) -> None:
        read = Compose(
            [
                LoadImage(reader="PydicomReader", image_only=True),
                EnsureChannelFirst(channel_dim="no_channel"),
                ThresholdIntensity(AIR_HU, above=True, cval=AIR_HU),
                Resize((size, size), mode="area"),
            ]
        )
        for file in files:
            hu = np.asarray(read(file))[0].T
            np.save(out / f"{file.stem}.npy", np.rint(hu).astype(np.int16))

    return write


def sitk_writer() -> Callable[[Sequence[Path], Path, int], None]:
    """Use SimpleITK's ``ReadImage`` and ``BinShrink``, and ``np.save``."""
    import SimpleITK as sitk  # noqa: N813

    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    sitk.ProcessObject.SetGlobalWarningDisplay(False)

    def write(files: Sequence[Path], out: Path, size: int) -> None:
        for file in files:
            image = sitk.Cast(sitk.ReadImage(str(file)), sitk.sitkFloat32)
            factor = image.GetSize()[0] // size
            image = sitk.BinShrink(sitk.Maximum(image, AIR_HU), [factor, factor, 1])
            small = sitk.GetArrayViewFromImage(image)[0]
            np.save(out / f"{file.stem}.npy", np.rint(small).astype(np.int16))

    return write


def write_floor(
    files: Sequence[str], offsets: Sequence[int], shape: tuple[int, int], out: Path, size: int
) -> None:
    """Do one read of the pixels, one area resize and one write per file: the lower bound of the task."""
    count = 2 * shape[0] * shape[1]
    with (out / "all.bin").open("wb") as target:
        for file, offset in zip(files, offsets, strict=True):
            with open(file, "rb", buffering=0) as source:  # noqa: PTH123
                source.seek(offset)
                stored: NDArray[np.int16] = np.frombuffer(source.read(count), dtype=np.int16).reshape(shape)
            target.write(cv2.resize(stored, (size, size), interpolation=cv2.INTER_AREA).data)
