"""Validate, read and correct stored labels."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

from redbrick_sandbox import store
from redbrick_sandbox.demo_project import CONFIRMED
from redbrick_sandbox.transitions import RefusalError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redbrick_sandbox.sandbox import Sandbox

Label = dict[str, Any]


def parse_labels(text: str, what: str = "labelsData") -> list[Label]:
    """Parse JSON text that must be a list of labels.

    :param text: the text.
    :param what: name of the argument, for the message.
    :raises RefusalError: if the text is not a list of objects with valid attributes.
    """
    labels = store.given(text, what)
    if not isinstance(labels, list) or not all(isinstance(label, dict) for label in labels):
        raise RefusalError(f"{what} is not a list of labels")
    for label in labels:
        attributes = label.get("attributes") or []
        if not isinstance(attributes, list) or not all(isinstance(each, dict) for each in attributes):
            raise RefusalError(f"{what}: attributes are a list of objects with name and value")
    return labels


def incoming(sandbox: Sandbox, data: str | None, path: str | None) -> tuple[str, str | None] | None:
    """Validate the labels of a mutation.

    :param sandbox: the sandbox that stores labels files.
    :param data: labels as JSON text.
    :param path: path of an uploaded labels file. Takes precedence over `data`.
    :return: JSON text and path, or None if the mutation has no labels. With a path, the text is an empty list.
    :raises RefusalError: if the labels are invalid.
    """
    if path is not None:
        file_labels(sandbox, path)
        return "[]", path
    if data is None:
        return None
    parse_labels(data)
    return data, None


def file_labels(sandbox: Sandbox, path: str) -> list[Label]:
    """Read an uploaded labels file.

    :param sandbox: the sandbox that stores the file.
    :param path: path of the file. It may be compressed with gzip.
    :raises RefusalError: if the file does not exist or is not a labels file.
    """
    found = sandbox.store.row("SELECT content FROM files WHERE path = ?", (path,))
    if found is None:
        raise RefusalError(f"labelsDataPath {path!r}: nothing has been uploaded there")
    content = bytes(found["content"])
    try:
        text = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
        return parse_labels(text.decode(), f"the file {path!r}")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise RefusalError(f"the file {path!r} cannot be read: {error}") from None


def current_labels(sandbox: Sandbox, version: str | None) -> list[Label]:
    """Return the labels of a version, from its file if it has one.

    :param sandbox: the sandbox that stores the labels.
    :param version: tdId of the version. None has no labels.
    """
    if version is None:
        return []
    row = sandbox.store.row("SELECT labels, labels_path FROM versions WHERE td_id = ?", (version,))
    if row is None:
        return []
    if row["labels_path"]:
        return file_labels(sandbox, row["labels_path"])
    return parse_labels(row["labels"])


def current_map(sandbox: Sandbox, version: str | None) -> list[dict[str, Any] | None]:
    """Return the segmentation files of a version by series.

    :param sandbox: the sandbox that stores the labels.
    :param version: tdId of the version.
    """
    row = sandbox.store.row("SELECT labels_map FROM versions WHERE td_id = ?", (version,))
    found: list[dict[str, Any] | None] = json.loads(row["labels_map"]) if row else []
    return found


def drawn_by_hand(name: str) -> list[Label]:
    """Return the labels that a person draws on an unlabeled task.

    It is one box, whose place depends on the task's name.
    """
    spot = sum(name.encode()) % 40 / 100
    box = {"xnorm": 0.1 + spot, "ynorm": 0.2 + spot / 2, "wnorm": 0.25, "hnorm": 0.2}
    return [{"category": "finding", "attributes": [], "bbox2d": box}]


def corrected(labels: Sequence[Label], name: str) -> list[Label]:
    """Return labels after correction by a person.

    Boxes have half the size, and all labels are confirmed.

    :param labels: labels before the correction. If there are none, new ones are drawn.
    :param name: name of the task.
    """
    return [_corrected(label) for label in labels] or [_corrected(label) for label in drawn_by_hand(name)]


def _corrected(label: Label) -> Label:
    better = dict(label)
    kept = [each for each in label.get("attributes") or [] if each.get("name") != CONFIRMED]
    better["attributes"] = [*kept, {"name": CONFIRMED, "value": True}]
    box = label.get("bbox2d")
    if isinstance(box, dict):
        better["bbox2d"] = {
            "xnorm": box["xnorm"] + 0.25 * box["wnorm"],
            "ynorm": box["ynorm"] + 0.25 * box["hnorm"],
            "wnorm": 0.5 * box["wnorm"],
            "hnorm": 0.5 * box["hnorm"],
        }
    return better
