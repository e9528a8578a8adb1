"""What Airflow asks of every provider. Imports nothing: Airflow calls it in each of its processes."""

from __future__ import annotations


def get_provider_info() -> dict[str, object]:
    """Return this provider's description in the form of Airflow's ``provider_info.schema.json``."""
    package = "airflow_provider_redbrick"
    integration = "RedBrick AI"
    return {
        "package-name": "airflow-provider-redbrick",
        "name": "RedBrick AI",
        "description": "Medical-image labelling on `RedBrick AI <https://redbrickai.com/>`__, as a part of pipelines.",
        "integrations": [
            {
                "integration-name": integration,
                "external-doc-url": "https://docs.redbrickai.com/",
                "tags": ["service"],
            }
        ],
        "hooks": [{"integration-name": integration, "python-modules": [f"{package}.hooks.redbrick"]}],
        "operators": [
            {
                "integration-name": integration,
                "python-modules": [
                    f"{package}.operators.auto_review",
                    f"{package}.operators.balance_assignments",
                    f"{package}.operators.export_tasks",
                    f"{package}.operators.list_tasks",
                    f"{package}.operators.prelabel",
                    f"{package}.operators.put_labels",
                    f"{package}.operators.reopen_ground_truth",
                    f"{package}.operators.upload_tasks",
                ],
            }
        ],
        "sensors": [
            {
                "integration-name": integration,
                "python-modules": [f"{package}.sensors.stage_queue", f"{package}.sensors.tasks"],
            }
        ],
        "triggers": [
            {
                "integration-name": integration,
                "python-modules": [f"{package}.triggers.stage_queue", f"{package}.triggers.tasks"],
            }
        ],
        "connection-types": [
            {
                "connection-type": "redbrick",
                "hook-name": "RedBrick AI",
                "hook-class-name": f"{package}.hooks.redbrick.RedBrickHook",
                "ui-field-behaviour": {
                    "hidden-fields": ["schema", "login", "port", "extra"],
                    "relabeling": {"password": "API key", "host": "API URL"},
                    "placeholders": {"host": "https://api.redbrickai.com", "password": "43 characters"},
                },
                "conn-fields": _CONNECTION_FIELDS,
            }
        ],
    }


_CONNECTION_FIELDS: dict[str, object] = {
    "org_id": {
        "label": "Organisation ID",
        "description": "The organisation that operators work in when they name none.",
        "schema": {"type": ["string", "null"]},
    },
    "project_id": {
        "label": "Project ID",
        "description": "The project that operators work in when they name none.",
        "schema": {"type": ["string", "null"]},
    },
    "auth": {
        "label": "Credential",
        "description": "What the password field holds: an API key, or a session's access token.",
        "schema": {"type": ["string", "null"], "enum": ["api_key", "access_token"], "default": "api_key"},
    },
    "timeout": {
        "label": "Timeout (s)",
        "description": "Seconds to wait for an answer.",
        "schema": {"type": ["number", "null"], "minimum": 1, "maximum": 600, "default": 30},
    },
    "max_concurrency": {
        "label": "Requests at a time",
        "description": "How many tasks one operator works on at the same time.",
        "schema": {"type": ["integer", "null"], "minimum": 1, "maximum": 30, "default": 10},
    },
    "mutations_per_request": {
        "label": "Changes a request",
        "description": "How many changes of tasks go in one request; fewer when the server refuses.",
        "schema": {"type": ["integer", "null"], "minimum": 1, "maximum": 50, "default": 10},
    },
    "requests_per_second": {
        "label": "Requests a second",
        "description": "How many requests one operator may begin in a second; 0 for as many as there are.",
        "schema": {"type": ["number", "null"], "minimum": 0, "maximum": 1000, "default": 0},
    },
    "page_size": {
        "label": "Tasks a page",
        "description": "How many tasks a listing asks for at once; fewer when the server refuses.",
        "schema": {"type": ["integer", "null"], "minimum": 1, "maximum": 1000, "default": 200},
    },
    "plain_json": {
        "label": "Plain JSON",
        "description": "Send requests uncompressed, for servers or proxies that do not know RedBrick's encoding.",
        "schema": {"type": ["boolean", "null"], "default": False},
    },
}
