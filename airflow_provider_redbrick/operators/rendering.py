"""Templates, which labels have none of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Collection


def beside_labels(
    content: Mapping[str, Any], keys: Collection[str], render: Callable[[Mapping[str, Any]], Mapping[str, Any]]
) -> dict[str, Any]:
    """Render what stands beside labels: a per cent sign in somebody's comment is no template.

    :param keys: where labels stand, when it is labels themselves rather than a template or an upstream task's output.
    """
    labels = {key: value for key, value in content.items() if key in keys and _is_plain(value)}
    return {**render({key: value for key, value in content.items() if key not in labels}), **labels}


def _is_plain(value: object) -> bool:
    return isinstance(value, (Mapping, list, tuple)) or value is None
