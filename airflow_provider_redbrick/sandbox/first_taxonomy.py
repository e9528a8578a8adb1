"""Taxonomy of the first generation of the API.

It is a tree of names, which remote-labeling stages use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.sandbox.seed import FIRST_TAXONOMY_ID
from airflow_provider_redbrick.sandbox.taxonomy import TAXONOMY

if TYPE_CHECKING:
    from collections.abc import Iterator

Node = dict[str, Any]

# Objects of the current taxonomy that are grouped. The others are children of the root.
_GROUPS = {"anatomy": ("vessel", "organ"), "measurement": ("diameter", "bend")}


def _tree() -> Node:
    leaves = {
        each["category"]: {"name": each["category"], "classId": each["classId"], "children": []}
        for each in TAXONOMY["objectTypes"]
    }
    groups = [
        {"name": group, "classId": number, "children": [leaves.pop(name) for name in names]}
        for number, (group, names) in enumerate(_GROUPS.items(), len(leaves))
    ]
    return {"name": "object", "children": [*leaves.values(), *groups]}


FIRST_TAXONOMY: dict[str, Any] = {
    **TAXONOMY,
    "taxId": FIRST_TAXONOMY_ID,
    "name": "Sandbox First Taxonomy",
    "isNew": False,
    "categories": [_tree()],
    "studyClassify": None,
    "seriesClassify": None,
    "instanceClassify": None,
    "objectTypes": None,
}


def _paths(nodes: list[Node], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for node in nodes:
        path = (*above, node["name"])
        yield from _paths(node["children"], path) if node["children"] else [path]


# All paths from the root to a leaf.
PATHS = frozenset(_paths(FIRST_TAXONOMY["categories"]))
