"""Stored files of a project: images, masks and long label lists.

Files are uploaded to presigned URLs of the label storage. A list of more than :data:`INLINE_LABELS` labels is
uploaded as a gzip file, and the mutation carries its path; shorter lists go inline.
"""

from __future__ import annotations

import gzip
import json
import tempfile
import uuid
from typing import TYPE_CHECKING, Any, BinaryIO

from airflow_provider_redbrick.api import documents
from airflow_provider_redbrick.api.answers import raw_text, reading
from airflow_provider_redbrick.api.models import flat_labels

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_provider_redbrick.api.scope import Scope

INLINE_LABELS = 1000
"""Maximum number of a task's labels sent inline; RedBrick's SDK has the same limit."""

NIFTI = "application/octet-stream"
"""Content type of a stored mask."""


def mask_name(mask: BinaryIO, stem: str) -> str:
    """Return the file name for an open NIfTI file, with ``.gz`` if it is compressed.

    :param mask: the open file; its position changes.
    :param stem: the name without endings.
    """
    mask.seek(0)
    return f"{stem}.nii.gz" if mask.read(2) == b"\x1f\x8b" else f"{stem}.nii"


class ProjectFiles:
    """Upload files to a project's label storage, and fetch stored files."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope

    def label_variables(
        self, labels: Sequence[Any] | None, labels_map: Sequence[Mapping[str, Any] | None], *, task_id: str
    ) -> dict[str, Any]:
        """Return labels as variables for a mutation. A long list is uploaded first.

        :param labels: the labels in the stored ("flat") format; ``None`` keeps those that the task has.
        :param labels_map: by series, where the masks are in the label storage.
        :param task_id: the task, for error messages.
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
        """Upload a segmentation mask (NIfTI) and return its path in the label storage.

        :param mask: an open file; it is sent from its start to its end, and left open.
        :param task_id: the task, for error messages.
        :param series: the index of the series it belongs to; part of the file name.
        """
        return self._store(mask, mask_name(mask, f"{series}"), task_id, kind=NIFTI)

    def get(self, url: str) -> bytes:
        """Fetch the file behind a presigned URL, decompressed if it is gzip."""
        return self._scope.client.transport.storage.get(url)

    def labels(self, url: str) -> tuple[Mapping[str, Any], ...]:
        """Fetch labels that are stored in a file because they do not fit inline."""
        content = self.get(url)
        with reading("labels file"):
            return flat_labels(content)

    def fetch_mask(self, url: str) -> BinaryIO:
        """Fetch a mask, without decompressing it, into an anonymous temporary file.

        The caller closes the file, which deletes it.
        """
        mask = tempfile.TemporaryFile()  # noqa: SIM115 - closed by the caller
        try:
            self._scope.client.transport.storage.fetch(url, mask)
        except BaseException:
            mask.close()
            raise
        return mask

    def _store(
        self, content: bytes | BinaryIO, name: str, task_id: str, *, kind: str, encoding: str | None = None
    ) -> str:
        name_in_storage = f"labels/{uuid.uuid4()}/{uuid.uuid4()}/{name}"
        variables = {"files": [name_in_storage], "fileType": kind, "fileEncoding": encoding}
        data = self._scope.execute(documents.PRESIGN_UPLOADS, variables, task_ids=[task_id])
        with reading("presignUploads"):
            signed = data["presignUploads"][0]
            url, path = raw_text(signed["presignedUrl"]), raw_text(signed["filePath"])
            if not url or not path:
                raise KeyError("presignedUrl")
        self._scope.client.transport.storage.put(url, content, kind=kind, encoding=encoding)
        return path
