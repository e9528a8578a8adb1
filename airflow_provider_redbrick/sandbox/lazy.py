"""Fields that are worked out only when a query selects them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Field = Callable[..., Any]


def lazy(make: Callable[..., Any]) -> Field:
    """Turn a function of a field's arguments into what GraphQL calls for the field."""

    def resolve(_info: Any, **arguments: Any) -> Any:
        return make(**arguments)

    return resolve
