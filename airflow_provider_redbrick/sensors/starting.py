"""Decide whether a sensor's wait can start in the triggerer.

The triggerer renders templates since Airflow 3.3, to text, and from the serialized DAG. It has the DAG run itself. A
lookup of XComs or Variables would block its event loop, or is never answered there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.hooks.check import has_template

if TYPE_CHECKING:
    from collections.abc import Mapping

# Template names that the DAG run itself provides. Any other name needs a lookup.
_RUN_VARIABLES = frozenset(
    {
        *("params", "dag_run", "run_id", "logical_date", "ds", "ds_nodash", "ts", "ts_nodash", "ts_nodash_with_tz"),
        *("data_interval_start", "data_interval_end", "macros"),
    }
)


def worker_reason(values: Mapping[str, Any], dag: Any, *, native: bool | None) -> str:
    """Return why a worker must render these values; empty if the triggerer can.

    :param values: the sensor's parameters as written in the DAG.
    :param dag: the sensor's DAG; None if it has none yet.
    :param native: whether the sensor renders to native objects; None for the DAG's setting.
    """
    for name, value in values.items():
        if not _is_plain(value):
            return f"{name} is another Airflow task's output"
    templated = [name for name, value in values.items() if _has_template(value)]
    names = " and ".join(templated)
    if not names:
        return ""
    if dag is None:
        return f"how to render {names} is unknown because the sensor has no DAG"
    lookups = set().union(*(_variables(values[name]) for name in templated)) - _RUN_VARIABLES
    if dag.user_defined_macros or dag.user_defined_filters:
        return f"only a worker has the DAG's own macros, which {names} may use"
    if dag.render_template_as_native_obj if native is None else native:
        return f"only a worker renders {names} to native objects"
    return f"only a worker can look up {', '.join(sorted(lookups))} for {names}" if lookups else ""


def _is_plain(value: object) -> bool:
    """Return whether a value can be serialized as it is.

    An upstream task's output, for example, cannot.
    """
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (str, int, float))


def _variables(value: object) -> set[str]:
    """Return the names that a template refers to, or the template if it is invalid.

    The worker then reports the syntax error.
    """
    from jinja2 import Environment, TemplateSyntaxError, meta

    if isinstance(value, (list, tuple)):
        return set().union(*map(_variables, value))
    if not isinstance(value, str):
        return set()
    try:
        return meta.find_undeclared_variables(Environment(autoescape=True).parse(value))
    except TemplateSyntaxError:
        return {value}


def _has_template(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return any(map(_has_template, value))
    return isinstance(value, str) and has_template(value)
