"""Whether a sensor's wait can begin in the triggerer, without a worker before it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.hooks.check import has_template

if TYPE_CHECKING:
    from collections.abc import Mapping

# What stands in a DAG run itself. To look up the rest, XComs and Variables say, stops the triggerer's event loop, or is
# never answered there.
_IN_THE_RUN = frozenset(
    {
        *("params", "dag_run", "run_id", "logical_date", "ds", "ds_nodash", "ts", "ts_nodash", "ts_nodash_with_tz"),
        *("data_interval_start", "data_interval_end", "macros"),
    }
)


def why_not_from_trigger(values: Mapping[str, Any], dag: Any, *, native: bool | None) -> str:
    """Return why a worker has to see these values first; empty when the triggerer can read them by itself.

    The triggerer renders templates since Airflow 3.3, to text, and from what is stored of a DAG.

    :param values: the sensor's arguments as they are in the DAG.
    :param dag: the sensor's DAG; None when it has none yet.
    :param native: whether the sensor itself renders to native objects; None for what its DAG says.
    """
    for name, value in values.items():
        if not _is_plain(value):
            return f"{name} comes from another Airflow task"
    templated = [name for name, value in values.items() if _has_template(value)]
    names = " and ".join(templated)
    if not names:
        return ""
    if dag is None:
        return f"how {names} will be rendered is not known while the sensor has no DAG"
    others = set().union(*(_variables(values[name]) for name in templated)) - _IN_THE_RUN
    worker_has = {
        "the DAG's own macros, which may be in": dag.user_defined_macros or dag.user_defined_filters,
        "native objects, as which it renders": dag.render_template_as_native_obj if native is None else native,
        f"what is looked up ({', '.join(sorted(others))}) for": others,
    }
    return next((f"only a worker has {what} {names}" for what, there in worker_has.items() if there), "")


def _is_plain(value: object) -> bool:
    """Whether a value can be stored as it is: an upstream task's output, say, is none."""
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (str, int, float))


def _variables(value: object) -> set[str]:
    """Return the names that a template begins with; a template that cannot be read is a worker's to complain about."""
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
