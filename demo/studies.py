"""Create a folder of new studies from DICOM and NIfTI files of installed packages."""

from __future__ import annotations

import shutil
from pathlib import Path

from demo.places import HOME

FOLDER = HOME / "new-studies"


def put_into_folder(count: int) -> Path:
    """Copy a number of image files into the folder, and return the folder."""
    import nibabel
    from pydicom.data import get_testdata_file

    volume = Path(nibabel.__file__).parent / "tests" / "data" / "anatomical.nii"
    files = [Path(str(get_testdata_file("CT_small.dcm"))), Path(str(get_testdata_file("MR_small.dcm"))), volume]
    FOLDER.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        source = files[number % len(files)]
        shutil.copyfile(source, FOLDER / f"new-study-{number + 1:03d}{source.suffix}")
    return FOLDER
