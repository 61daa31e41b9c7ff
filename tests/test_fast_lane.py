"""`make test-fast` contains a test of every command."""

import argparse
import ast
from pathlib import Path

import pytest

from vivit.cli.main import _parser

pytestmark = pytest.mark.fast


def fast_tests():
    """The text of every test that is marked `fast`, with that of its module's fixtures."""
    for path in Path(__file__).parent.glob("test_*.py"):
        module = ast.parse(path.read_text(encoding="utf-8"))
        functions = {node.name: node for node in module.body if isinstance(node, ast.FunctionDef)}
        whole = "pytestmark = pytest.mark.fast" in map(ast.unparse, module.body)
        for name, test in functions.items():
            marked = whole or "pytest.mark.fast" in map(ast.unparse, test.decorator_list)
            if name.startswith("test_") and marked:
                parts = [test, *(functions[argument.arg] for argument in test.args.args if argument.arg in functions)]
                yield "\n".join(ast.unparse(line) for part in parts for line in part.body)


def test_every_command_is_run_by_a_fast_test():
    (commands,) = (action for action in _parser()._actions if isinstance(action, argparse._SubParsersAction))
    texts = [text for text in fast_tests() if "main(" in text]
    missing = [name for name in commands.choices if not any(f"['{name}'" in text for text in texts)]
    assert not missing, f"no test marked fast calls main with a list that begins with {missing}"
