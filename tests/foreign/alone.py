"""Read every file below a folder alone, through the library, and compare with pydicom; JSON of what came out.

    python tests/foreign/alone.py FOLDER

This is a process of its own, so that a crash, a hang or memory that runs out is the parent's finding.
"""

import json
import resource
import signal
import sys
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
from oracle import pydicom_hu

from rsna_seq.imaging.archives import MARK
from rsna_seq.imaging.headers.batch import read_block
from rsna_seq.imaging.headers.fields import Header
from rsna_seq.imaging.headers.single import read_headers
from rsna_seq.imaging.pixels import read_hu
from rsna_seq.imaging.sources import Listing, list_files
from rsna_seq.reasons import ExclusionError

FILE_S = 60
"""Seconds that one file may take; a hundredth is usual."""
FRAMES = 5
"""Frames of an object that are compared."""


class Alone:
    """What reading every file alone came to."""

    def __init__(self, listing: Listing) -> None:
        self.listing, self.read, self.compared, self.equal, self.slowest_s = listing, 0, 0, 0, 0.0
        self.reasons: Counter[str] = Counter()
        self.accepted: dict[int, dict[str, Any]] = {}
        self.faults: list[str] = []

    def run(self) -> None:
        """Read the whole listing by the fast reader, then each file."""
        listing = self.listing
        self.reasons.update(str(row["reason"]) for row in listing.aside)
        fast, others = read_block(str(listing.root), listing.names, listing.sizes, listing.mtimes_ns)
        self.accepted = {int(row.pop("at")): row for row in fast.to_dicts()}
        if sorted([*self.accepted, *others]) != list(range(len(listing))):
            self.faults.append("the fast reader lost a file")
        signal.signal(signal.SIGALRM, _hang)
        for at, name in enumerate(listing.names):
            began = time.perf_counter()
            signal.alarm(FILE_S)
            try:
                self.one(at)
            except ExclusionError as error:
                self.reasons[str(error.reason)] += 1
                if at in self.accepted:
                    self.faults.append(f"{name}: accepted by the fast reader only: {error}")
            except Exception:  # the law is that there is no other
                self.faults.append(f"{name}: {traceback.format_exc()[-800:]}")
            finally:
                signal.alarm(0)
            self.slowest_s = max(self.slowest_s, time.perf_counter() - began)

    def one(self, at: int) -> None:
        """Read one file: its headers, as the fast reader has them, and its pixels, as pydicom has them."""
        path = f"{self.listing.root}/{self.listing.names[at]}"  # a Path would change a member named "a//b"
        headers = read_headers(path)
        self.read += 1
        if at in self.accepted:
            slow, row = headers[0], self.accepted[at]
            differ = {name: (slow[name], row[name]) for name in slow if slow[name] != row[name]}
            if differ or len(headers) != 1:
                self.faults.append(f"{path}: the readers differ: {differ}")
        for header in headers[:FRAMES]:
            about = {"file_size": self.listing.sizes[at], "file_mtime_ns": self.listing.mtimes_ns[at]}
            try:
                hu = read_hu(path, {**header, **about})
            except ExclusionError as error:
                self.reasons[f"pixels: {error.reason}"] += 1
                continue
            self.compare(path, header, hu)

    def compare(self, path: str, header: Header, hu: np.ndarray) -> None:
        """Compare the HU of a frame with pydicom's, where pydicom can read them."""
        theirs = None if MARK in path else pydicom_hu(Path(path), header["frame"])
        if theirs is None:
            self.reasons["pixels: not read by pydicom"] += 1
            return
        self.compared += 1
        same = theirs.shape == hu.shape and bool((theirs == hu).all())
        self.equal += same
        if not same:
            far = np.abs(theirs - hu).max() if theirs.shape == hu.shape else "another shape"
            about = {k: header[k] for k in ("slope", "intercept", "bits_stored", "signed", "padding")}
            self.faults.append(f"{path} frame {header['frame']}: HU differ from pydicom's by {far}: {about}")


def _hang(_signal: int, _frame: object) -> None:
    raise TimeoutError(f"the file took more than {FILE_S} s")


def main(folder: Path) -> None:
    """Read the files below a folder, and print what came out as JSON."""
    alone = Alone(list_files(folder))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    alone.run()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    told = {
        name: getattr(alone, name) for name in ("read", "compared", "equal", "slowest_s", "reasons", "faults")
    }
    told |= {"files": len(alone.listing) + len(alone.listing.aside), "fast": len(alone.accepted)}
    print(json.dumps({**told, "peak_mib": peak // 1024}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
