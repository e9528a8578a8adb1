"""A folder of new studies: real DICOM and NIfTI files, which pydicom and nibabel ship in their packages."""

from __future__ import annotations

import shutil
from pathlib import Path

from demo.places import HOME

FOLDER = HOME / "new-studies"


def put_into_folder(count: int) -> Path:
    """Put so many files into the folder, as if a scanner had sent them, and return it."""
    import nibabel
    from pydicom.data import get_testdata_file

    volume = Path(nibabel.__file__).parent / "tests" / "data" / "anatomical.nii"
    files = [Path(str(get_testdata_file("CT_small.dcm"))), Path(str(get_testdata_file("MR_small.dcm"))), volume]
    FOLDER.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        source = files[number % len(files)]
        shutil.copyfile(source, FOLDER / f"new-study-{number + 1:03d}{source.suffix}")
    return FOLDER
