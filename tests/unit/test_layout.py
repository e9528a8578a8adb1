"""The rules of the layout that a linter does not know: sizes of modules, words, documented parameters."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROVIDER = sorted((ROOT / "airflow_provider_redbrick").rglob("*.py"))
SANDBOX = sorted((ROOT / "sandbox" / "redbrick_sandbox").rglob("*.py"))
# Airflow loads these by their paths.
LOADED_BY_PATH = {"triggers/tasks.py"}
UNCLEAR = re.compile(r"\b(somebody|nobody|anybody|whoever|be it|for ever)\b", re.IGNORECASE)
TEXTS = [
    path
    for folder in ("airflow_provider_redbrick", "sandbox", "docs", "example_dags", "demo", "benchmarks", "tests")
    for path in sorted((ROOT / folder).rglob("*"))
    if path.suffix in {".py", ".md", ".html", ".js", ".css"}
    and not {"_build", "__pycache__"} & set(path.parts)
    and path != Path(__file__)
] + sorted(ROOT.glob("*.md"))


def test_the_packages_stay_small():
    assert len(PROVIDER) <= 120
    assert len(SANDBOX) <= 28


@pytest.mark.parametrize("path", [*PROVIDER, *SANDBOX], ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_is_one_idea(path):
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= 500
    if path.name != "__init__.py" and not any(str(path).endswith(name) for name in LOADED_BY_PATH):
        assert lines >= 40


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_words_of_the_style_guide(path):
    text = path.read_text(encoding="utf-8")
    found = [f"line {text.count(chr(10), 0, m.start()) + 1}: {m.group()}" for m in UNCLEAR.finditer(text)]
    assert not found


UNIT_TESTS = [
    path.relative_to(ROOT / "tests" / "unit")
    for folder in (ROOT / "airflow_provider_redbrick").iterdir()
    for path in sorted((ROOT / "tests" / "unit" / folder.name).rglob("test_*.py"))
]


@pytest.mark.parametrize("path", UNIT_TESTS, ids=str)
def test_a_unit_test_is_named_after_its_module(path):
    """``test_files.py`` or ``test_files_local.py`` for ``files.py`` of the same folder."""
    modules = [module.stem for module in (ROOT / "airflow_provider_redbrick" / path.parent).glob("*.py")]
    assert any(path.stem == f"test_{module}" or path.stem.startswith(f"test_{module}_") for module in modules)


def public_functions(tree):
    """Yield public functions and methods with the docstrings that may document them."""

    def walk(body, of_class):
        for node in body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                yield from walk(node.body, ast.get_docstring(node) or "")
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                if node.name == "__init__":
                    yield node, of_class + (ast.get_docstring(node) or "")
                elif not node.name.startswith("_"):
                    yield node, ast.get_docstring(node) or ""

    yield from walk(tree.body, "")


@pytest.mark.parametrize("path", [*PROVIDER, *SANDBOX], ids=lambda path: str(path.relative_to(ROOT)))
def test_public_functions_document_their_parameters(path):
    missing = []
    for node, documented in public_functions(ast.parse(path.read_text(encoding="utf-8"))):
        if any(ast.unparse(decorator).endswith("overload") for decorator in node.decorator_list):
            continue
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        names = [argument.arg for argument in arguments if argument.arg not in {"self", "cls"}]
        if len(names) < 2:
            continue
        missing += [f"{node.name}: {name}" for name in names if f":param {name}:" not in documented]
    assert not missing
