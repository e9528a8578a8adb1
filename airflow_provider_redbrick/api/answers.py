"""Taking values out of answers whose shape is not guaranteed."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from airflow_provider_redbrick.exceptions import RedBrickAnswerError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def reading(operation: str) -> Iterator[None]:
    """Make an answer of another shape an error of its own, named after the operation, instead of a ``KeyError``."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError, RecursionError) as error:
        words = f"RedBrick's answer lacks what was asked for ({type(error).__name__}: {error})."
        raise RedBrickAnswerError(words, operation=operation) from None
