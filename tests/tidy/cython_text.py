"""Reads Cython sources as text, closely enough to find functions, their lengths and their exception contracts.

An approximation with a stated limit: signatures are found by their first line (`def`, `cdef` or `cpdef` with a parenthesis)
and their balanced parentheses; code hidden in string literals would mislead it, and the house does not write such code.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

_HEADER = re.compile(r"^(?P<indent>\s*)(?P<kind>async def|def|cdef|cpdef)\s+(?P<rest>[^#]*\(.*|[^#=]*\w\(.*)$")
_NOT_FUNCTION = re.compile(r"^(class|struct|union|enum|extern|packed|cppclass|fused)\b")
_PYTHON_RETURN_TYPES = frozenset(
    {"object", "bytes", "str", "tuple", "list", "dict", "set", "frozenset", "bytearray", "memoryview", "type"}
)
_MODIFIERS = frozenset({"inline", "public", "readonly", "api", "static", "const"})


class CythonFunction(NamedTuple):
    """One function or declaration: lines counted from 1, `lines` from its header to its last line that is not blank."""

    kind: str
    name: str
    return_type: str
    trailer: str  # what stands between the closing parenthesis and the end of the signature
    line: int
    line_count: int
    in_extern: bool

    @property
    def has_exception_contract(self) -> bool:
        """noexcept, except …, or a Python object as result (NULL says it all)."""
        if re.search(r"\b(noexcept|except)\b", self.trailer):
            return True
        if self.return_type.endswith("*"):
            return False
        base = self.return_type.split("[")[0]
        return base == "" or base in _PYTHON_RETURN_TYPES or base[:1].isupper()


def find_functions(text: str) -> Iterator[CythonFunction]:
    """Functions of a .pyx or .pxd, methods and declarations included, in order."""
    lines = text.splitlines()
    extern_indent = -1
    for index, line in enumerate(lines):
        stripped = line.strip()
        indent = len(line) - len(line.lstrip())
        if stripped and indent <= extern_indent:
            extern_indent = -1
        if stripped.startswith("cdef extern"):
            extern_indent = indent
        match = _HEADER.match(line)
        if match is None or _NOT_FUNCTION.match(match["rest"]):
            continue
        head, trailer = _signature(lines, index)
        parsed = re.match(r"^(?P<type>.*?)(?P<name>\w+)\s*$", head)
        if parsed is None or "=" in head:
            continue
        words = [word for word in parsed["type"].replace("*", " * ").split() if word not in _MODIFIERS]
        return_type = " ".join(words).replace(" *", "*")
        line_count = _line_count(lines, index, indent)
        in_extern = extern_indent >= 0
        yield CythonFunction(match["kind"], parsed["name"], return_type, trailer, index + 1, line_count, in_extern)


def _signature(lines: list[str], index: int) -> tuple[str, str]:
    # Text before the first parenthesis (without `cdef`) and after the one that closes it, up to the end of that line.
    text = "\n".join(lines[index : index + 40])
    text = text.strip().split(None, 2 if text.lstrip().startswith("async") else 1)[-1]
    start = text.index("(")
    depth = 0
    for position in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[position], 0)
        if depth == 0:
            return text[:start], text[position + 1 :].split("\n", 1)[0]
    return text[:start], ""


def _line_count(lines: list[str], index: int, indent: int) -> int:
    last = index
    depth = 0
    for position in range(index, len(lines)):
        line = lines[position]
        if position > index and depth <= 0 and line.strip() and len(line) - len(line.lstrip()) <= indent:
            break
        if position == index or depth > 0:
            depth += line.count("(") - line.count(")")
        if line.strip():
            last = position
    return last - index + 1
