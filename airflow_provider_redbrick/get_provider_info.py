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
                "python-modules": [
                    f"{package}.triggers.ground_truth_event",
                    f"{package}.triggers.stage_queue",
                    f"{package}.triggers.stage_queue_event",
                    f"{package}.triggers.tasks",
                ],
            }
        ],
        "asset-uris": [
            {
                "schemes": ["redbrick"],
                "handler": f"{package}.assets.uris.normalize_uri",
                "factory": f"{package}.assets.stages.create_asset",
            }
        ],
        "extra-links": [
            f"{package}.links.redbrick.RedBrickProjectLink",
            f"{package}.links.redbrick.RedBrickTaskLink",
        ],
        "config": {"redbrick": _CONFIGURATION},
        # Airflow's schema has "path" here; what it reads is "class-name".
        "task-decorators": [
            {
                "name": "redbrick_prelabel",
                "class-name": f"{package}.decorators.prelabel.redbrick_prelabel_task",
            },
            {
                "name": "redbrick_auto_review",
                "class-name": f"{package}.decorators.auto_review.redbrick_auto_review_task",
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
        "description": "How many requests one operator has under way at a time.",
        "schema": {"type": ["integer", "null"], "minimum": 1, "maximum": 30, "default": 10},
    },
    "mutations_per_request": {
        "label": "Changes a request",
        "description": "How many changes of tasks go in one request; fewer when the server refuses.",
        "schema": {"type": ["integer", "null"], "minimum": 1, "maximum": 50, "default": 10},
    },
    "requests_per_second": {
        "label": "Requests a second",
        "description": "How many requests a process may begin in a second; 0: no limit.",
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
    "allow_http": {
        "label": "Allow http",
        "description": (
            "Let the key and files travel unencrypted, to a host written with http:// that is not this machine."
        ),
        "schema": {"type": ["boolean", "null"], "default": False},
    },
    "web_url": {
        "label": "Web app URL",
        "description": "Where links lead, for servers other than RedBrick's own; their host by default.",
        "schema": {"type": ["string", "null"]},
    },
}


_CONFIGURATION: dict[str, object] = {
    "description": "What the RedBrick provider adds to Airflow's API server.",
    "options": {
        "boards": {
            "description": (
                "The projects that the page RedBrick offers first: connection ids, separated by commas, each with a "
                "project's id behind a slash where it is not the connection's own."
            ),
            "version_added": "1.0.0",
            "type": "string",
            "example": "redbrick_default, redbrick_trial/3fa85f64-5717-4562-b3fc-2c963f66afa6",
            "default": "redbrick_default",
        },
        "queue_history_days": {
            "description": (
                "How many days the page RedBrick remembers how long queues were, in one Airflow Variable a project; "
                "0 for not at all."
            ),
            "version_added": "1.0.0",
            "type": "float",
            "example": None,
            "default": "7",
        },
        "queue_sample_minutes": {
            "description": (
                "How often each API server counts the queues of the projects named by boards, in minutes, whether or "
                "not somebody has the page open: two requests a project, and one for each remote-labeling stage. 0 for "
                "never: then queue lengths over time have gaps."
            ),
            "version_added": "1.0.0",
            "type": "float",
            "example": None,
            "default": "15",
        },
        "webhook_secret": {
            "description": (
                "At least 20 letters and digits that nobody guesses. With it, RedBrick's webhook may be sent to "
                "<Airflow's address>/redbrick-webhook/<secret>; without it, there is no such address."
            ),
            "version_added": "1.0.0",
            "type": "string",
            "sensitive": True,
            "example": None,
            "default": None,
        },
        "webhook_conn_id": {
            "description": "The connection by which RedBrick is asked whether what its webhook says is so.",
            "version_added": "1.0.0",
            "type": "string",
            "example": None,
            "default": "redbrick_default",
        },
    },
}
