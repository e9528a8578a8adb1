"""Determine file types from content, to refuse error pages and pointers.

Downloads often contain an error page or a Git LFS pointer in place of the file.

1. A reliable signature takes precedence over the name.
2. DICOM files need neither a preamble nor a suffix, so unknown content is accepted where DICOM is expected.
3. NIfTI volumes always have a signature, so nothing else is accepted where a volume is expected.
4. The content of files in external storage cannot be read, so only names that no image has are refused.
"""

from __future__ import annotations

import math
import re
import zlib
from itertools import chain
from struct import unpack_from
from typing import TYPE_CHECKING, BinaryIO

from airflow_provider_redbrick.client.operations.uploads import file_name, suffix_of

if TYPE_CHECKING:
    from collections.abc import Callable

LOOKED_AT = 8192
"""The number of leading bytes that are examined."""

_SYSTEM_FILES = {
    "dicomdir": "a DICOMDIR, which lists other files",
    ".ds_store": "a system file of macOS",
    "thumbs.db": "a system file of Windows",
    "ehthumbs.db": "a system file of Windows",
    "desktop.ini": "a system file of Windows",
}
_APPLE_DOUBLE = "a system file of macOS (AppleDouble)"
_DICOMDIR_CLASS = re.compile(rb"\x02\x00\x02\x00UI..1\.2\.840\.10008\.1\.3\.10(?![\d.])", re.DOTALL)
_POINTER = "a Git LFS pointer instead of the file (`git lfs pull` fetches it)"
_SIGNATURES = (
    (b"version https://git-lfs.github.com/spec/", "pointer", _POINTER),
    (b"version https://hawser.github.com/spec/", "pointer", _POINTER),
    (b"/annex/objects/", "pointer", "a git-annex pointer instead of the file (`git annex get` fetches it)"),
    (b"\x1f\x8b", "gzip", "gzip data"),
    (b"\x89PNG\r\n\x1a\n", "png", "a PNG picture"),
    (b"\xff\xd8\xff", "jpeg", "a JPEG picture"),
    (b"GIF8", "gif", "a GIF picture"),
    (b"NRRD0", "nrrd", "an NRRD volume"),
    (b"II*\x00", "tiff", "a TIFF picture"),
    (b"MM\x00*", "tiff", "a TIFF picture"),
    (b"\x00\x00\x00\x0cjP  ", "jpeg 2000", "a JPEG 2000 picture"),
    (b"\x00\x05\x16\x07", "apple", _APPLE_DOUBLE),
    (b"\x00\x05\x16\x00", "apple", _APPLE_DOUBLE),
    (b"\x00\x00\x00\x01Bud1", "apple", _SYSTEM_FILES[".ds_store"]),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "ole", "an OLE file (Thumbs.db, or an older Office document)"),
    (b"%PDF-", "pdf", "a PDF document"),
    (b"PK\x03\x04", "zip", "a ZIP archive"),
    (b"PK\x05\x06", "zip", "a ZIP archive"),
    (b"7z\xbc\xaf\x27\x1c", "7z", "a 7-Zip archive"),
    (b"Rar!\x1a\x07", "rar", "a RAR archive"),
    (b"BZh", "bzip2", "bzip2 data"),
    (b"\xfd7zXZ\x00", "xz", "xz data"),
    (b"\x28\xb5\x2f\xfd", "zstd", "Zstandard data"),
    (b"SQLite format 3\x00", "sqlite", "an SQLite database"),
    (b"\x89HDF\r\n\x1a\n", "hdf5", "an HDF5 file"),
    (b"\x93NUMPY", "numpy", "a NumPy array"),
    (b"\x7fELF", "program", "a program"),
)
_MARKUP = re.compile(
    r"\s*(?:<!--.*?-->\s*|<\?xml[^>]*>\s*)*<(?P<tag>!doctype\s+html|[a-z][\w:.-]*)", re.DOTALL | re.IGNORECASE
)
_PAGE_TAGS = {"html", "head", "body", "title", "script", "meta", "h1", "center", "pre", "p", "div", "style"}
_STAND_IN_KEYS = frozenset({"html", "xml", "pointer", "apple"})
_JSON = re.compile(r"\{\s*[\"}]|\[\s*[\[\]{\"\d-]")
_BOMS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))
_CONTROL_CHARACTERS = re.compile("[\0-\x08\x0e-\x1f\x7f-\x9f]")

FileType = tuple[str, str]
"""A file type: a key, and its description in messages."""


def _is_nifti(head: bytes) -> bool:
    size = head[:4]
    if size in {b"\x5c\x01\x00\x00", b"\x00\x00\x01\x5c"}:
        return len(head) >= 348  # also the older Analyze format, whose files are read alike
    if size in {b"\x1c\x02\x00\x00", b"\x00\x00\x02\x1c"}:
        return head[4:7] in {b"n+2", b"ni2"}
    return head[344:348] in {b"n+1\x00", b"ni1\x00"}


_TYPE_CHECKS: tuple[tuple[Callable[[bytes], bool], str, str], ...] = (
    (_is_nifti, "nifti", "a NIfTI volume"),
    (lambda head: head[:2] == b"BM" and head[6:10] == bytes(4), "bmp", "a BMP picture"),
    (lambda head: head[4:8] == b"ftyp", "video", "an MP4 or QuickTime video"),
    (lambda head: head[:4] == b"RIFF" and head[8:12] == b"AVI ", "video", "an AVI video"),
    (lambda head: head[:4] == b"RIFF" and head[8:12] == b"WEBP", "webp", "a WebP picture"),
    (lambda head: head[257:262] == b"ustar", "tar", "a tar archive"),
)


def housekeeping(name: str) -> str | None:
    """Describe a file whose name no image has; return None for other names."""
    base_name = file_name(name).lower()
    return _APPLE_DOUBLE if base_name.startswith("._") else _SYSTEM_FILES.get(base_name)


def known_kind(head: bytes) -> FileType | None:
    """Return the file type that the first bytes prove; None if they prove none."""
    if head[128:132] == b"DICM":
        is_index = _DICOMDIR_CLASS.search(head, 132) is not None
        return ("dicomdir", _SYSTEM_FILES["dicomdir"]) if is_index else ("dicom", "a DICOM file")
    checked = ((key, description) for matches, key, description in _TYPE_CHECKS if matches(head))
    by_signature = ((key, description) for signature, key, description in _SIGNATURES if head.startswith(signature))
    return next(chain(checked, by_signature), None) or _text_kind(head)


def what_is_wrong(name: str, head: bytes) -> str | None:
    """Return why a file cannot be the item that its name states; None if it can.

    :param name: a path or URL.
    :param head: the first ``LOOKED_AT`` bytes.
    """
    suffix, compressed = suffix_of(name)
    if compressed:
        if not head.startswith(b"\x1f\x8b"):
            file_type = known_kind(head)
            return (
                f"its name ends in .gz, but it {_looks_like(file_type)}"
                if file_type
                else "it is not compressed with gzip"
            )
        head = _decompressed(head)
        if not head:
            return "it is a damaged or empty gzip file"
    problem = _content_problem(suffix, name, head)
    return f"its decompressed content is invalid: {problem}" if problem and compressed else problem


def cut_short(name: str, head: bytes, size: int) -> str | None:
    """Return an error message for a NIfTI volume shorter than its header states.

    Gzip data truncated between two members are valid, but hold only part of the volume.

    :param name: a path or URL.
    :param head: the first ``LOOKED_AT`` bytes of the file.
    :param size: the uncompressed size in bytes.
    """
    suffix, compressed = suffix_of(name)
    expected_bytes = _nifti_size(_decompressed(head) if compressed else head) if suffix == ".nii" else 0
    return (
        f"it is truncated: its header states {expected_bytes} bytes, but it has {size}"
        if size < expected_bytes
        else None
    )


def _nifti_size(head: bytes) -> int:
    """Return the size in bytes by a NIfTI header; 0 if unknown."""
    for order in "<>":
        if len(head) >= 348 and head[344:348] == b"n+1\0" and unpack_from(f"{order}i", head)[0] == 348:
            (bits,), (offset,) = unpack_from(f"{order}h", head, 72), unpack_from(f"{order}f", head, 108)
            axes = unpack_from(f"{order}8h", head, 40)
        elif len(head) >= 540 and head[4:7] == b"n+2" and unpack_from(f"{order}i", head)[0] == 540:
            (bits,), (offset,) = unpack_from(f"{order}h", head, 14), unpack_from(f"{order}q", head, 168)
            axes = unpack_from(f"{order}8q", head, 16)
        else:
            continue
        sizes = axes[1 : 1 + axes[0]]
        is_known = 1 <= axes[0] <= 7 and min(sizes) > 0 and bits > 0 and math.isfinite(offset)
        return int(offset) + math.prod(sizes) * bits // 8 if is_known else 0
    return 0


def stand_in(file: BinaryIO) -> str | None:
    """Describe an error page, pointer or system file in place of labels or a mask.

    :param file: an open file at its beginning, where it is returned to; one that is not seekable is not read.
    """
    if not file.seekable():
        return None
    file_type = known_kind(file.read(LOOKED_AT))
    file.seek(0)
    return file_type[1] if file_type is not None and file_type[0] in _STAND_IN_KEYS else None


def _content_problem(suffix: str, name: str, head: bytes) -> str | None:
    file_type = known_kind(head)
    if file_type is None:
        if suffix == ".nii":
            return "it is not a NIfTI volume"
        description = housekeeping(name)
        return f"it is {description}" if description else None
    key, description = file_type
    if key == "gzip":
        return f"it is compressed with gzip, but its name has no .gz suffix; rename it to {file_name(name) + '.gz'!r}"
    return None if _ACCEPTS.get(suffix, _is_dicom)(key) else f"it {_looks_like(file_type)}"


def _is_dicom(key: str) -> bool:
    return key == "dicom"


def _accept_only(*keys: str) -> Callable[[str], bool]:
    return lambda key: key in keys


_PICTURE = _accept_only("png", "jpeg", "bmp")
_ACCEPTS: dict[str, Callable[[str], bool]] = {
    ".nii": _accept_only("nifti"),
    ".nrrd": _accept_only("nrrd"),
    ".json": _accept_only("json", "text"),
    ".txt": _accept_only("text", "json", "html", "xml"),
    ".html": _accept_only("text", "html", "xml"),
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".bmp"), _PICTURE),
}


def _looks_like(file_type: FileType) -> str:
    return f"looks like {file_type[1]}"


def _decompressed(head: bytes) -> bytes:
    """Decompress the beginning of gzip data; return no bytes if they are damaged."""
    try:
        return zlib.decompressobj(wbits=31).decompress(head, LOOKED_AT)
    except zlib.error:
        return b""


def _text_kind(head: bytes) -> FileType | None:
    """Return the type of a text file; None if it is no recognizable text."""
    text = _text(head)
    markup = _MARKUP.match(text)
    if markup is not None:
        tag = markup["tag"].lower()
        if tag.startswith("!doctype") or tag in _PAGE_TAGS:
            return "html", "an HTML page"
        return "xml", "an XML error message" if "error" in tag else "an XML document"
    text = text.strip()
    if not text or _CONTROL_CHARACTERS.search(text):
        return None
    if _JSON.match(text):
        return "json", "JSON text"
    return ("text", "plain text") if re.search(r"\s", text) else None


def _text(head: bytes) -> str:
    """Decode the beginning as UTF-8, UTF-16 or, if invalid, Latin-1."""
    for mark, encoding in _BOMS:
        if head.startswith(mark):
            return head[len(mark) : 1024].decode(encoding, "ignore")
    try:
        return head[:1024].decode()
    except UnicodeDecodeError as error:
        # The last character may be incomplete; some servers use Latin-1.
        return head[: error.start].decode() if error.start > 1020 else head[:1024].decode("latin-1")
