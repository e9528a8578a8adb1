"""Write the published JSON Schemas to docs/schemas. `make schemas` runs it; a test checks that they are current."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic.json_schema import GenerateJsonSchema

from airflow_provider_redbrick.actions.task_specs import TaskSpec
from airflow_provider_redbrick.labels.models import TaskLabels

if TYPE_CHECKING:
    from pydantic import BaseModel

FOLDER = Path(__file__).parent / "schemas"
SCHEMAS: dict[str, type[BaseModel]] = {"labels.json": TaskLabels, "task.json": TaskSpec}


class _WithoutTitles(GenerateJsonSchema):
    """Leave out titles, which repeat the name of each field in other letters."""

    def field_title_should_be_set(self, _schema: Any) -> bool:
        return False


def json_schema(model: type[BaseModel]) -> str:
    """Return the JSON Schema of a model, as the text of a file."""
    schema = model.model_json_schema(schema_generator=_WithoutTitles)
    schema["$schema"] = GenerateJsonSchema.schema_dialect
    return json.dumps(schema, indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, model in SCHEMAS.items():
        (FOLDER / name).write_text(json_schema(model), encoding="utf-8")
