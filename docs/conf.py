"""Sphinx configuration. `make docs` builds offline and treats warnings as errors."""

from __future__ import annotations

# Autodoc imports modules with TYPE_CHECKING set. Airflow's own models break if they are first imported so.
import airflow  # noqa: F401

from airflow_provider_redbrick import __version__

project = "airflow-provider-redbrick"
copyright = "the airflow-provider-redbrick maintainers"  # noqa: A001 - the name is Sphinx's
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"{project} {release}"

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_default_options = {"show-inheritance": True}
