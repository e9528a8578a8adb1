"""Templates, which labels have none of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Collection


def beside_labels(content: Mapping[str, Any], keys: Collection[str], render: Callable[[Any], Any]) -> dict[str, Any]:
    """Render what stands beside labels: a per cent sign in somebody's comment is no template.

    Upstream tasks' outputs are put in place everywhere, in labels too.

    :param keys: where labels stand, when it is labels themselves rather than a template or an upstream task's output.
    """
    labels = {key: value for key, value in content.items() if key in keys and _is_plain(value)}
    rest = render({key: value for key, value in content.items() if key not in labels})
    return {**rest, **{key: _with_outputs(value, render) for key, value in labels.items()}}


def _is_plain(value: object) -> bool:
    return isinstance(value, (Mapping, list, tuple)) or value is None


def _with_outputs(value: Any, render: Callable[[Any], Any]) -> Any:
    """Return labels with upstream tasks' outputs in their places; the very same where there are none."""
    try:
        return _resolved(value, render) if _names_output(value) else value
    except RecursionError:
        return value  # it is refused later, in words


def _names_output(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_names_output, value.values()))
    return any(map(_names_output, value)) if isinstance(value, (list, tuple)) else _is_output(value)


def _resolved(value: Any, render: Callable[[Any], Any]) -> Any:
    if isinstance(value, Mapping):
        return {key: _resolved(each, render) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_resolved(each, render) for each in value]
    return render(value) if _is_output(value) else value


def _is_output(value: object) -> bool:
    # Airflow's own class for them is not public; what has but one of the two may be a path.
    return hasattr(value, "iter_references") and hasattr(value, "resolve")
