"""Compares each built extension module with its .pyi: the same public names, in modules and in classes, and the
same parameters of functions and methods, where the built one tells them."""

import ast
import enum
import inspect
from collections.abc import Iterator
from types import ModuleType

from tests.tidy.sources import Finding, Source


def declared_names(body: list[ast.stmt]) -> set[str]:
    """Public names a stub's module or class body declares."""
    names: set[str] = set()
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
        elif isinstance(node, ast.Assign):
            names.update(target.id for target in node.targets if isinstance(target, ast.Name))
    return {name for name in names if not name.startswith("_")}


def imported_names(source: Source) -> set[str]:
    """Names a .pyx binds by importing: they are not its own. Reading lines is enough."""
    names: set[str] = set()
    for line in source.lines:
        words = line.split("#")[0].replace(",", " ").replace("(", " ").replace(")", " ").split()
        keyword = next((word for word in words if word in ("import", "cimport")), None)
        if keyword is not None and words[0] in ("from", "import", "cimport"):
            tail = words[words.index(keyword) + 1 :]
            names.update(name.split(".")[0] for name in tail if name != "as")
    return names


def public_names(module: ModuleType, imported: set[str]) -> set[str]:
    """Names a user of the built module sees: without imports, and without enum members repeated beside their enum."""
    values = {name: value for name, value in vars(module).items() if not name.startswith("_")}
    members = {
        member
        for value in values.values()
        if inspect.isclass(value) and issubclass(value, enum.Enum)
        for member in value.__members__
    }
    return {
        name
        for name, value in values.items()
        if name not in imported and name not in members and not inspect.ismodule(value)
    }


def check_stub(module: ModuleType, pyx: Source, pyi: Source) -> Iterator[Finding]:
    """Names on one side only, of the module and of each class that both sides have; functions that differ in their parameters."""
    stub = ast.parse(pyi.text)
    declared = declared_names(stub.body)
    actual = public_names(module, imported_names(pyx))
    yield from _differences(pyi.path, 1, module.__name__, actual, declared)
    yield from _other_parameters(pyi.path, module.__name__, module, stub.body)
    for node in stub.body:
        value = getattr(module, node.name, None) if isinstance(node, ast.ClassDef) else None
        if not isinstance(node, ast.ClassDef) or not inspect.isclass(value):
            continue
        if issubclass(value, enum.Enum):
            members = set(value.__members__)
        elif hasattr(value, "_fields"):
            members = set(value._fields) | {name for name in vars(value) if not name.startswith("_")}
        else:
            members = {name for name in vars(value) if not name.startswith("_")}
        declared = declared_names(node.body)
        if value.__dictoffset__ != 0:
            # A plain Python class: its attributes are the instance's, and no class lists them.
            members |= {name for name in declared if name in _annotated_names(node)}
        yield from _differences(pyi.path, node.lineno, node.name, members, declared)
        yield from _other_parameters(pyi.path, node.name, value, node.body)


def _annotated_names(node: ast.ClassDef) -> set[str]:
    return {part.target.id for part in node.body if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name)}


def _differences(path: str, line: int, owner: str, actual: set[str], declared: set[str]) -> Iterator[Finding]:
    for name in sorted(actual - declared):
        yield Finding(path, line, f"{owner}.{name} exists and is not declared here")
    for name in sorted(declared - actual):
        yield Finding(path, line, f"{owner}.{name} is declared here and does not exist")


def _other_parameters(path: str, owner: str, built: object, body: list[ast.stmt]) -> Iterator[Finding]:
    for node in body:
        function = getattr(built, node.name, None) if isinstance(node, ast.FunctionDef) else None
        # A property tells no parameters, and a C class none of its __init__.
        if not isinstance(node, ast.FunctionDef) or node.name == "__init__" or not inspect.isroutine(function):
            continue
        parameters = inspect.signature(function).parameters.values()
        actual = [(each.name, each.default is not each.empty) for each in parameters]
        if actual != _declared_parameters(node.args):
            names = ", ".join(name + "=…" * has_default for name, has_default in actual)
            yield Finding(path, node.lineno, f"{owner}.{node.name} takes ({names})")


def _declared_parameters(arguments: ast.arguments) -> list[tuple[str, bool]]:
    """(name, whether it has a default), in order."""
    positional = [*arguments.posonlyargs, *arguments.args]
    first_default = len(positional) - len(arguments.defaults)
    found = [(each.arg, number >= first_default) for number, each in enumerate(positional)]
    found += [(each.arg, False) for each in (arguments.vararg,) if each is not None]
    found += [(each.arg, default is not None) for each, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
    return found + [(each.arg, False) for each in (arguments.kwarg,) if each is not None]
