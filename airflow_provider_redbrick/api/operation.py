"""Read the name and kind of an operation from a GraphQL document.

Imports no HTTP library, which takes long to import.
"""

from __future__ import annotations

import re

_OPERATION = re.compile(r"\s*(query|mutation)\s+(\w+)")


def describe(document: str) -> tuple[str, bool]:
    """Return a document's operation name and whether it is a mutation.

    :raises ValueError: if the document does not start with ``query <name>`` or ``mutation <name>``.
    """
    match = _OPERATION.match(document)
    if match is None:
        raise ValueError("A document starts with 'query name' or 'mutation name'.")
    return match.group(2), match.group(1) == "mutation"
