"""Provider metadata for Airflow.

Imports nothing: Airflow calls ``get_provider_info`` in each of its processes.
"""

from __future__ import annotations


def get_provider_info() -> dict[str, object]:
    """Return the metadata, in the form of Airflow's ``provider_info.schema.json``."""
    package = "airflow_provider_redbrick"
    integration = "RedBrick AI"
    return {
        "package-name": "airflow-provider-redbrick",
        "name": "RedBrick AI",
        "description": "Medical-image labeling on `RedBrick AI <https://redbrickai.com/>`__ in Airflow pipelines.",
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
                "python-modules": [
                    f"{package}.triggers.redbrick",
                ],
            }
        ],
        "asset-uris": [
            {
                "schemes": ["redbrick"],
                "handler": f"{package}.assets.stages.normalize_uri",
                "factory": f"{package}.assets.stages.create_asset",
            }
        ],
        "extra-links": [
            f"{package}.links.RedBrickProjectLink",
            f"{package}.links.RedBrickTaskLink",
        ],
        "config": {"redbrick": _CONFIGURATION},
        # Airflow's schema says "path" here, but Airflow reads "class-name".
        "task-decorators": [
            {
                "name": "redbrick_prelabel",
                "class-name": f"{package}.decorators.redbrick.redbrick_prelabel_task",
            },
            {
                "name": "redbrick_auto_review",
                "class-name": f"{package}.decorators.redbrick.redbrick_auto_review_task",
            },
        ],
        "notifications": [f"{package}.notifications.queue.RedBrickQueueNotifier"],
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
        "label": "Organization ID",
        "description": "Default organization of operators.",
        "schema": {"type": ["string", "null"]},
    },
    "project_id": {
        "label": "Project ID",
        "description": "Default project of operators.",
        "schema": {"type": ["string", "null"]},
    },
    "auth": {
        "label": "Credential",
        "description": "Type of the credential in the password field: an API key or a session's access token.",
        "schema": {"type": ["string", "null"], "enum": ["api_key", "access_token"], "default": "api_key"},
    },
    "timeout": {
        "label": "Timeout (s)",
        "description": "Seconds to wait for a response.",
        "schema": {"type": ["number", "null"], "minimum": 1, "maximum": 600, "default": 30},
    },
    "max_concurrency": {
        "label": "Concurrent requests",
        "description": "Maximum number of concurrent requests of one operator.",
        "schema": {"type": ["integer", "null"], "minimum": 1, "maximum": 30, "default": 10},
    },
    "mutations_per_request": {
        "label": "Mutations per request",
        "description": "Task changes in one request. Reduced when the server refuses.",
        "schema": {"type": ["integer", "null"], "minimum": 1, "maximum": 50, "default": 10},
    },
    "requests_per_second": {
        "label": "Requests per second",
        "description": "Maximum number of requests that a process starts per second. 0 means no limit.",
        "schema": {"type": ["number", "null"], "minimum": 0, "maximum": 1000, "default": 0},
    },
    "page_size": {
        "label": "Tasks per page",
        "description": "Tasks in one page of a listing. Reduced when the server refuses.",
        "schema": {"type": ["integer", "null"], "minimum": 1, "maximum": 1000, "default": 200},
    },
    "settle_seconds": {
        "label": "Settle time (s)",
        "description": (
            "Seconds by which reads may lag behind writes, and after which a request without an answer is no longer "
            "applied."
        ),
        "schema": {"type": ["number", "null"], "minimum": 0, "maximum": 600, "default": 30},
    },
    "plain_json": {
        "label": "Plain JSON",
        "description": "Send requests uncompressed, for servers or proxies that do not support RedBrick's encoding.",
        "schema": {"type": ["boolean", "null"], "default": False},
    },
    "allow_http": {
        "label": "Allow http",
        "description": ("Allow unencrypted transfer of the key and files to an http:// host other than this machine."),
        "schema": {"type": ["boolean", "null"], "default": False},
    },
    "web_url": {
        "label": "Web app URL",
        "description": "Base address of links, for servers other than RedBrick's own. The API's host by default.",
        "schema": {"type": ["string", "null"]},
    },
}


_CONFIGURATION: dict[str, object] = {
    "description": "RedBrick page and webhook in Airflow's API server.",
    "options": {
        "boards": {
            "description": (
                "Projects that the RedBrick page lists first: connection ids separated by commas. Append a slash and a "
                "project id to use another project than the connection's."
            ),
            "version_added": "1.0.0",
            "type": "string",
            "example": "redbrick_default, redbrick_trial/3fa85f64-5717-4562-b3fc-2c963f66afa6",
            "default": "redbrick_default",
        },
        "webhook_secret": {
            "description": (
                "Secret of at least 20 random letters and digits. Enables the webhook endpoint at "
                "<Airflow's address>/redbrick-webhook/<secret>. Without it, there is no such endpoint."
            ),
            "version_added": "1.0.0",
            "type": "string",
            "sensitive": True,
            "example": None,
            "default": None,
        },
        "webhook_conn_id": {
            "description": "Connection used to verify webhook events with RedBrick.",
            "version_added": "1.0.0",
            "type": "string",
            "example": None,
            "default": "redbrick_default",
        },
    },
}
