"""Template rendering that leaves labels unchanged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Collection


def render_except_labels(
    content: Mapping[str, Any], keys: Collection[str], render: Callable[[Any], Any]
) -> dict[str, Any]:
    """Render templates in an object, except in its labels.

    A ``{{`` in a label's comment is not a template. Outputs of upstream tasks are resolved everywhere, in labels too.

    :param content: the object.
    :param keys: the keys that hold labels. A value is labels if it is neither text nor an upstream task's output.
    :param render: Airflow's rendering of any value.
    """
    labels = {key: value for key, value in content.items() if key in keys and _is_plain(value)}
    rest = render({key: value for key, value in content.items() if key not in labels})
    return {**rest, **{key: _with_outputs(value, render) for key, value in labels.items()}}


def _is_plain(value: object) -> bool:
    return isinstance(value, (Mapping, list, tuple)) or value is None


def _with_outputs(value: Any, render: Callable[[Any], Any]) -> Any:
    """Resolve upstream tasks' outputs in labels; return labels without any unchanged."""
    try:
        return _resolve(value, render) if _has_output(value) else value
    except RecursionError:
        return value  # Validation refuses labels that are nested too deeply, with a message.


def _has_output(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_has_output, value.values()))
    return any(map(_has_output, value)) if isinstance(value, (list, tuple)) else _is_output(value)


def _resolve(value: Any, render: Callable[[Any], Any]) -> Any:
    if isinstance(value, Mapping):
        return {key: _resolve(item, render) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_resolve(item, render) for item in value]
    return render(value) if _is_output(value) else value


def _is_output(value: object) -> bool:
    # Airflow's class of outputs is not public. A value with only one of the two attributes may be a path.
    return hasattr(value, "iter_references") and hasattr(value, "resolve")
