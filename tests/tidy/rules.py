"""House rules that read one file at a time, and the few that read several.

Each is a generator of Findings over one Source; which files it is asked about is decided in test_house_rules.py.
Words that a rule bans are spelled in pieces here, so that this file obeys it.
"""

import ast
import os.path
import re
from collections.abc import Iterable, Iterator

from tests.tidy.cython_text import find_functions
from tests.tidy.sources import Finding, Source

FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 70
# Path → (lines allowed, why it is one noun all the same).
LONG_FILES: dict[str, tuple[int, str]] = {}

_UNFINISHED = re.compile(r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK")) + r")\b")
_MACHINE_PATH = re.compile(r"(?<![\w.$}])/(?:wo" + r"rk|ro" + r"ot|ho" + r"me|Us" + r"ers)/\w")
_FOREIGN_TEXT = re.compile(r"\b(?:[Cc]on" + r"tract|CON" + r"TRACT|DES" + r"IGN|GO" + r"ALS)(?:\.md\b| §| \")")
_ERROR_CODE = re.compile(r"\bTM-[A-Z]+-\d{4}\b")
_ERROR_ROW = re.compile(r'^\s+"(TM-[A-Z]+-\d{4})": .*?(# reserved)?$')
_MAKE_COMMAND = re.compile(r"(?:^|[`$]|&&|;)\s*make(?:\s+[A-Z_]+=\S+)*\s+([a-z][a-z-]*)", re.MULTILINE)
_MAKE_TARGET = re.compile(r"^([a-z][a-z-]*):", re.MULTILINE)
_LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)")
_C_FUNCTION_END = re.compile(r"^}")
_C_FUNCTION_START = re.compile(r"^[a-zA-Z_].*\)\s*{\s*$|^[a-zA-Z_][^;]*\($")
_BUILD_TIME_CYTHON = re.compile(r"^\s*(include\s+[\"']|DEF\s+\w+|IF\s+.+:\s*$)")
_ENVIRONMENT = re.compile(r"\bos\.(environ|getenv)\b|from os import .*\b(environ|getenv)\b")
_OUTSIDE_NAMES = frozenset(
    {"body", "buffer", "chunk", "content", "credential", "encoded", "frame", "header", "headers", "packet", "params", "payload"}
    | {"query", "raw", "request", "secret", "token"}
)
_READING = re.compile(r"_?(decode|parse|scan|recover|replay|verify|load)(_|$)")
_WALL_CLOCK = re.compile(r"\btime\.(time|time_ns)\(|\bdatetime\.(now|utcnow|today)\(")


def check_file_length(source: Source) -> Iterator[Finding]:
    """At most FILE_LINES_MAX lines, or what LONG_FILES grants."""
    limit = LONG_FILES.get(source.path, (FILE_LINES_MAX, ""))[0]
    if len(source.lines) > limit:
        yield Finding(source.path, limit + 1, f"{len(source.lines)} lines, at most {limit}: which two nouns are in it?")


def check_function_length(source: Source) -> Iterator[Finding]:
    """At most FUNCTION_LINES_MAX lines from header to end: exact for Python, by indentation for Cython, by braces for C."""
    for name, line, count in _functions(source):
        if count > FUNCTION_LINES_MAX:
            yield Finding(source.path, line, f"{name} has {count} lines, at most {FUNCTION_LINES_MAX}")


def _functions(source: Source) -> Iterator[tuple[str, int, int]]:
    if source.suffix == ".py":
        for node in ast.walk(ast.parse(source.text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield node.name, node.lineno, (node.end_lineno or node.lineno) - node.lineno + 1
    elif source.suffix in (".pyx", ".pxd"):
        yield from ((each.name, each.line, each.line_count) for each in find_functions(source.text))
    elif source.suffix == ".h":
        start = 0
        for number, line in enumerate(source.lines, 1):
            if _C_FUNCTION_START.match(line):
                start = number
            elif start and _C_FUNCTION_END.match(line):
                yield source.lines[start - 1].strip(), start, number - start + 1
                start = 0


def check_exception_contracts(source: Source) -> Iterator[Finding]:
    """Every cdef and cpdef function says noexcept or except, or returns a Python object; a library's are its own."""
    for function in find_functions(source.text):
        if function.kind in ("cdef", "cpdef") and not function.in_extern and not function.has_exception_contract:
            message = f"{function.name}: say `noexcept` or `except` (returns {function.return_type})"
            yield Finding(source.path, function.line, message)


def check_cython_constructs(source: Source) -> Iterator[Finding]:
    """`cimport`, never `include`; an enum, never DEF; no IF."""
    for number, line in enumerate(source.lines, 1):
        if _BUILD_TIME_CYTHON.match(line):
            yield Finding(source.path, number, f"{line.split()[0]} is not used here: cimport, or `cdef enum`")


def check_unfinished(source: Source) -> Iterator[Finding]:
    """No marker of unfinished work: an issue is filed instead."""
    for number, line in enumerate(source.lines, 1):
        if match := _UNFINISHED.search(line):
            yield Finding(source.path, number, f"{match[0]}: finish it, or file it")


def check_machine_paths(source: Source) -> Iterator[Finding]:
    """No absolute path of somebody's machine."""
    for number, line in enumerate(source.lines, 1):
        if match := _MACHINE_PATH.search(line):
            yield Finding(source.path, number, f"{match[0]}…: a path of one machine")


def check_foreign_texts(source: Source) -> Iterator[Finding]:
    """No word of a text that the repository has not: docs/ and ARCHITECTURE.md say it."""
    for number, line in enumerate(source.lines, 1):
        if match := _FOREIGN_TEXT.search(line):
            yield Finding(source.path, number, f"{match[0]}: not of this repository; docs/ or ARCHITECTURE.md says it")


def check_asserts(source: Source) -> Iterator[Finding]:
    """No assertion on bytes from a peer or a disk: those get a status or a code.

    Judged by names: an assertion that speaks of one of _OUTSIDE_NAMES, or stands in a function whose job is to read foreign
    bytes (_READING) and is about more than the state of `self` or `x is not None`, which tells the type checker what is known.
    """
    message = "asserts on what came from outside: answer with a status or a code"
    if source.suffix != ".py":
        for number, line in enumerate(source.lines, 1):
            if re.match(r"\s*assert\b", line) and set(re.findall(r"\w+", line)) & _OUTSIDE_NAMES:
                yield Finding(source.path, number, message)
        return
    for function in ast.walk(ast.parse(source.text)):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        reads = _READING.match(function.name) is not None
        for node in ast.walk(function):
            if not isinstance(node, ast.Assert):
                continue
            names = {part.id for part in ast.walk(node.test) if isinstance(part, ast.Name)}
            narrowing = re.fullmatch(r"[\w.]+ is not None", ast.unparse(node.test)) is not None
            if names & _OUTSIDE_NAMES or (reads and not narrowing and names != {"self"}):
                yield Finding(source.path, node.lineno, message)


def check_docstring(source: Source) -> Iterator[Finding]:
    """A file opens with its purpose: a docstring in .py and .pyx, a comment in .h."""
    text = source.text.lstrip()
    if source.suffix == ".py":
        if ast.get_docstring(ast.parse(source.text)) is None:
            yield Finding(source.path, 1, "no module docstring: purpose and invariants")
    elif source.suffix == ".pyx":
        code = "\n".join(line for line in source.lines if not line.startswith("#")).lstrip()
        if not code.startswith(('"""', 'r"""')):
            yield Finding(source.path, 1, "no module docstring: purpose and invariants")
    elif not text.startswith(("/*", "//")):
        yield Finding(source.path, 1, "no opening comment: purpose and invariants")


def check_environment(source: Source) -> Iterator[Finding]:
    """config/loading.py is the only reader of the environment."""
    for number, line in enumerate(source.lines, 1):
        if _ENVIRONMENT.search(line):
            yield Finding(source.path, number, "reads the environment: config/loading.py does that")


def check_clock(source: Source) -> Iterator[Finding]:
    """Time comes from the Clock that was passed in."""
    for number, line in enumerate(source.lines, 1):
        if _WALL_CLOCK.search(line):
            yield Finding(source.path, number, "reads the wall clock: take a Clock")


def check_error_codes(source: Source, known_codes: Iterable[str]) -> Iterator[Finding]:
    """Every TM-… code that is written down is a row of errors.ERRORS."""
    known = frozenset(known_codes)
    for number, line in enumerate(source.lines, 1):
        for code in _ERROR_CODE.findall(line):
            if code not in known:
                yield Finding(source.path, number, f"{code} is not in errors.ERRORS")


def check_errors_raised(table: Source, others: Iterable[Source]) -> Iterator[Finding]:
    """Every row of the table of errors is raised somewhere, unless it is marked as reserved: then it is not."""
    raised = {code for source in others for code in re.findall(r'"(TM-[A-Z]+-\d{4})"', source.text)}
    for number, line in enumerate(table.lines, 1):
        if (match := _ERROR_ROW.match(line)) and (match[1] in raised) == (match[2] is not None):
            yield Finding(table.path, number, f"{match[1]} is reserved, and raised" if match[2] else f"nothing raises {match[1]}")


def check_make_commands(source: Source, makefile: Source) -> Iterator[Finding]:
    """Every `make TARGET` that a document shows is a target of the Makefile."""
    targets = frozenset(_MAKE_TARGET.findall(makefile.text))
    for number, line in enumerate(source.lines, 1):
        for target in _MAKE_COMMAND.findall(line):
            if target not in targets:
                yield Finding(source.path, number, f"`make {target}`: the Makefile has no such target")


def check_linked(pages: Iterable[Source], documents: Iterable[Source]) -> Iterator[Finding]:
    """Every page is led to by a link of another document."""
    linked: dict[str, set[str]] = {}  # page's path → documents that lead to it
    for document in documents:
        for target in _LINK.findall(document.text):
            path = os.path.normpath(os.path.join(os.path.dirname(document.path), target))
            linked.setdefault(path, set()).add(document.path)
    for page in pages:
        if not linked.get(page.path, set()) - {page.path}:
            yield Finding(page.path, 1, "no document links to it")


def check_changelog(changelog: Source, version: str) -> Iterator[Finding]:
    """The changelog has a heading for the package's version."""
    if not re.search(rf"^## \[?{re.escape(version)}\]?(\s|$)", changelog.text, re.MULTILINE):
        yield Finding(changelog.path, 1, f"no `## {version}` heading")
