"""A project's stored files: images, masks, and labels too many to come inline."""

from __future__ import annotations

import gzip
import json
import tempfile
import uuid
from typing import TYPE_CHECKING, Any, BinaryIO

from airflow_provider_redbrick.api import documents
from airflow_provider_redbrick.api.answers import reading, text_as_it_is
from airflow_provider_redbrick.api.models import flat_labels

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_provider_redbrick.api.scope import Scope

INLINE_LABELS = 1000
"""Labels of one task in a request, as RedBrick's own clients keep to."""

NIFTI = "application/octet-stream"


def mask_name(mask: BinaryIO, stem: str) -> str:
    """Return what an open NIfTI file is to be called, which tells whether it is compressed."""
    mask.seek(0)
    return f"{stem}.nii.gz" if mask.read(2) == b"\x1f\x8b" else f"{stem}.nii"


class ProjectFiles:
    """Puts files into a project's label storage, and says where stored files can be fetched."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope

    def carry(
        self, labels: Sequence[Any] | None, labels_map: Sequence[Mapping[str, Any] | None], *, task_id: str
    ) -> dict[str, Any]:
        """Return labels as the variables of any mutation that takes them; a list too long to go inline is stored first.

        :param labels: stored ("flat") labels; None sends none, and leaves those that are there.
        :param labels_map: where the masks are in the label storage, by series.
        """
        path = None
        if labels is not None and len(labels) > INLINE_LABELS:
            content = gzip.compress(json.dumps(labels).encode())
            path = self._store(content, "data.json", task_id, kind="application/json", encoding="gzip")
            labels = []
        return {
            "labelsData": None if labels is None else json.dumps(labels, separators=(",", ":")),
            "labelsDataPath": path,
            "labelsMap": list(labels_map),
        }

    def store_mask(self, mask: BinaryIO, task_id: str, *, series: int) -> str:
        """Store a segmentation mask, a NIfTI file, and return its path in the label storage.

        :param mask: an open file; it is sent from its beginning to its end, and left open.
        :param series: the series it belongs to, which is part of the file's name.
        """
        return self._store(mask, mask_name(mask, f"{series}"), task_id, kind=NIFTI)

    def get(self, url: str) -> bytes:
        """Fetch a file behind a presigned URL, decompressed when it is gzip."""
        return self._scope.client.transport.storage.get(url)

    def labels(self, url: str) -> tuple[Mapping[str, Any], ...]:
        """Fetch the stored labels that are too many to come inline."""
        content = self.get(url)
        with reading("labels file"):
            return flat_labels(content)

    def fetch_mask(self, url: str) -> BinaryIO:
        """Fetch a mask as it is stored; whoever closes the file is rid of it, for it has no name."""
        mask = tempfile.TemporaryFile()  # noqa: SIM115 - whoever asked for it closes it
        try:
            self._scope.client.transport.storage.fetch(url, mask)
        except BaseException:
            mask.close()
            raise
        return mask

    def _store(
        self, content: bytes | BinaryIO, name: str, task_id: str, *, kind: str, encoding: str | None = None
    ) -> str:
        wanted = f"labels/{uuid.uuid4()}/{uuid.uuid4()}/{name}"
        asked = {"files": [wanted], "fileType": kind, "fileEncoding": encoding}
        data = self._scope.execute(documents.PRESIGN_UPLOADS, asked, task_ids=[task_id])
        with reading("presignUploads"):
            signed = data["presignUploads"][0]
            url, path = text_as_it_is(signed["presignedUrl"]), text_as_it_is(signed["filePath"])
            if not url or not path:
                raise KeyError("presignedUrl")
        self._scope.client.transport.storage.put(url, content, kind=kind, encoding=encoding)
        return path
