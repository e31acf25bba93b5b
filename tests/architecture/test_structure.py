"""The house rules that a machine can hold. Limits may only go down."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "mesh_llm"
MODULES = sorted(path for path in SOURCE.rglob("*.py"))

LINES_OF_FILE_MAX = 400
LINES_OF_FUNCTION_MAX = 60
WORDS_THAT_SAY_NOTHING = {"utils", "util", "common", "helpers", "misc", "shared", "manager"}


def names_of(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(SOURCE)) for path in paths]


def test_no_file_is_longer_than_a_noun_deserves():
    long = [path for path in MODULES if len(path.read_text("utf-8").splitlines()) > LINES_OF_FILE_MAX]
    assert names_of(long) == []


def test_no_function_is_longer_than_a_screen():
    long = [
        f"{path.relative_to(SOURCE)}:{node.lineno} {node.name}"
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno + 1 > LINES_OF_FUNCTION_MAX
    ]
    assert long == []


def test_no_name_says_nothing():
    assert [
        path for path in names_of(MODULES) if WORDS_THAT_SAY_NOTHING & set(Path(path).with_suffix("").parts)
    ] == []


def test_every_module_says_what_it_is():
    silent = [path for path in MODULES if not ast.get_docstring(ast.parse(path.read_text("utf-8")))]
    assert names_of(silent) == []


@pytest.mark.parametrize("package", sorted(p.name for p in SOURCE.iterdir() if (p / "__init__.py").exists()))
def test_the_architecture_document_names_every_package(package):
    assert f"`{package}/`" in (ROOT / "docs" / "ARCHITECTURE.md").read_text("utf-8")
