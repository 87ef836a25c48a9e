"""What @pytest.mark.req says of each test, read from the source: nothing is imported.

A mark stands on a test, or on a pytest.param of its parametrize decorators; that may be
in a list or made by a function of the same file. The ids are literals, or the value of
a literal dict that a subscript picks.
"""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, TypeGuard

PARAMETRIZE, PARAM, REQ = "pytest.mark.parametrize", "pytest.param", "pytest.mark.req"
NOT_SHOWN = ("pytest.mark.skip", "pytest.mark.xfail")

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Marked(NamedTuple):
    """One test function; *cases* has the ids of each way to run it."""

    where: str
    cases: list[frozenset[str]]
    shown: bool

    @property
    def ids(self) -> frozenset[str]:
        return frozenset().union(*self.cases)


def marked_tests(folder: Path) -> list[Marked]:
    """Read every test below *folder* that pytest would collect."""
    found = []
    for path in sorted(folder.rglob("test_*.py")):
        found += read(path.read_text(), path.relative_to(folder).as_posix())
    return found


def read(source: str, name: str) -> list[Marked]:
    """Read one file; ValueError names a mark that is on no test, or cannot be read."""
    return Source(source, name).tests()


class Source:
    """One file of tests; *read* are the marks that were found on a test."""

    def __init__(self, source: str, name: str) -> None:
        self.name = name
        self.tree = ast.parse(source)
        self.definitions = dict(definitions(self.tree))
        self.read: set[ast.AST] = set()

    def tests(self) -> list[Marked]:
        found = [self.test(function) for function in collected(self.tree)]
        for node in ast.walk(self.tree):
            if called(node) == REQ and node not in self.read:
                raise ValueError(f"{self.place(node)}: the mark is on no test")
        return found

    def test(self, function: Function | ast.ClassDef) -> Marked:
        cases = [frozenset[str]()]
        shown = True
        for decorator in map(self.defined, function.decorator_list):
            if called(decorator) == REQ:
                alternatives = self.ids(decorator)
            elif called(decorator) == PARAMETRIZE:
                alternatives = self.alternatives(decorator)
            else:
                shown &= (called(decorator) or dotted(decorator)) not in NOT_SHOWN
                continue
            cases = [case | more for case in cases for more in alternatives]
        return Marked(f"{self.name}::{function.name}", cases, shown)

    def defined(self, decorator: ast.AST) -> ast.AST:
        """Return what a decorator that is a name of the file stands for."""
        return self.definitions.get(dotted(decorator), decorator)

    def alternatives(self, decorator: ast.AST) -> list[frozenset[str]]:
        """Return the ids of each marked param; none at all is one alternative too."""
        found = {frozenset[str]()}
        for node in self.reachable(decorator):
            if called(node) == PARAM:
                marks = [mark for mark in ast.walk(node) if called(mark) == REQ]
                if marks:
                    found.update(ids for mark in marks for ids in self.ids(mark))
        return sorted(found, key=sorted)

    def reachable(self, node: ast.AST) -> Iterator[ast.AST]:
        """Walk a node, and what it names in the same file."""
        todo, seen = [node], set[ast.AST]()
        while todo:
            for child in ast.walk(todo.pop()):
                yield child
                if isinstance(child, ast.Name) and child.id in self.definitions:
                    definition = self.definitions[child.id]
                    if definition not in seen:
                        seen.add(definition)
                        todo.append(definition)

    def ids(self, mark: ast.AST) -> list[frozenset[str]]:
        """Return the ids of a mark: one set, or one for each value of its dict."""
        assert isinstance(mark, ast.Call)
        self.read.add(mark)
        match mark.args:
            case [ast.Subscript(value=ast.Name(id=table))]:
                values = ast.literal_eval(self.definitions[table]).values()
                return [frozenset({value}) for value in values]
        try:
            return [frozenset(ast.literal_eval(argument) for argument in mark.args)]
        except ValueError:
            raise ValueError(f"{self.place(mark)}: the mark is no literal") from None

    def place(self, node: ast.AST) -> str:
        return f"{self.name}:{getattr(node, 'lineno', 0)}"


def collected(tree: ast.Module) -> Iterator[Function | ast.ClassDef]:
    """Yield what pytest takes for tests: functions, and whole state machines."""
    for node in tree.body:
        if is_state_machine(node):
            yield node
        inside = node.body if is_test_class(node) else [node]
        for function in inside:
            if isinstance(function, Function) and function.name.startswith("test"):
                yield function


def is_test_class(node: ast.AST) -> bool:
    return isinstance(node, ast.ClassDef) and node.name.startswith("Test")


def is_state_machine(node: ast.AST) -> TypeGuard[ast.ClassDef]:
    """Tell a test that hypothesis runs as one: it derives from a TestCase."""
    return (
        isinstance(node, ast.ClassDef)
        and is_test_class(node)
        and any((dotted(base) or "").endswith(".TestCase") for base in node.bases)
    )


def definitions(tree: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    """Yield what a name of the module stands for."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            yield node.targets[0].id, node.value
        elif isinstance(node, Function):
            yield node.name, node


def called(node: ast.AST) -> str:
    """Return the dotted name of what a call calls, empty for anything else."""
    return dotted(node.func) if isinstance(node, ast.Call) else ""


def dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""
