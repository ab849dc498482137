"""Each house rule, seen failing on a bad snippet and passing on its good neighbour."""

import types
from collections.abc import Callable, Iterator

import pytest

from tests.tidy import layers, rules, stubs
from tests.tidy.cython_text import find_functions
from tests.tidy.sources import Finding, Source

Check = Callable[[Source], Iterator[Finding]]
contracts = rules.check_exception_contracts
LONG_BODY = "    pass\n" * rules.FUNCTION_LINES_MAX

CASES: list[tuple[Check, str, str, str]] = [
    (rules.check_file_length, "a.py", "\n" * 401, "\n" * 400),
    (rules.check_function_length, "a.py", "def f():\n" + LONG_BODY, "def f():\n" + LONG_BODY[9:]),
    (rules.check_function_length, "a.py", "async def f():\n" + LONG_BODY, "async def f():\n" + LONG_BODY[9:]),
    (
        rules.check_function_length,
        "a.pyx",
        "cdef int f(\n    int a,\n) except -1:\n" + LONG_BODY,
        "cdef int f(int a) except -1:\n" + LONG_BODY[9:] + "\n\nx = 1\n",
    ),
    (rules.check_function_length, "a.pyx", "class C:\n    def f(self):\n" + "        pass\n" * 70, "class C:\n" + LONG_BODY),
    (
        rules.check_function_length,
        "a.h",
        "static int f(int a) {\n" + "    a++;\n" * 69 + "}\n",
        "static int f(int a) {\n" + "    a++;\n" * 68 + "}\n",
    ),
    (contracts, "a.pyx", "cdef int f(self):\n    return 1\n", "cdef int f(self) except -1:\n    return 1\n"),
    (contracts, "a.pyx", "cdef void f() nogil:\n    pass\n", "cdef void f() noexcept nogil:\n    pass\n"),
    (contracts, "a.pyx", "cpdef bint f(x):\n    pass\n", "cpdef object f(x):\n    pass\n"),
    (contracts, "a.pyx", "cdef inline int64_t f(\n    int a,\n):\n    pass\n", "cdef bytes f(int a):\n    pass\n"),
    (contracts, "a.pxd", "cdef class T:\n    cdef char* f(self)\n", "cdef class T:\n    cdef Grant f(self)\n"),
    (contracts, "a.pxd", "cdef int f(int a)\n", 'cdef extern from "a.h" nogil:\n    cdef int f(int a)\n'),
    (rules.check_cython_constructs, "a.pyx", 'include "b.pxi"\n', "from a cimport b\n"),
    (rules.check_cython_constructs, "a.pyx", "DEF SIZE = 4\n", "cdef enum:\n    SIZE = 4\n"),
    (rules.check_cython_constructs, "a.pyx", "IF UNAME:\n    pass\n", "if uname:\n    pass\n"),
    (rules.check_unfinished, "a.py", "# TO" + "DO: later\n", "# to do: nothing\n"),
    (rules.check_unfinished, "a.h", "/* FIX" + "ME */\n", "/* fixed */\n"),
    (rules.check_machine_paths, "a.md", "see /wo" + "rk/shared\n", "see build/work/shared\n"),
    (rules.check_machine_paths, "Makefile", "PYTHON = /ro" + "ot/bin/python\n", "PYTHON = /usr/bin/python3\n"),
    (rules.check_foreign_texts, "a.py", "# as con" + "tract §3 says\n", "# as RFC 9110 §3 says: a contract\n"),
    (rules.check_foreign_texts, "a.pyx", "# DES" + 'IGN "The rooms"\n', '# ARCHITECTURE.md "The rooms"\n'),
    (rules.check_asserts, "a.py", "def f(body):\n    assert len(body) < 9\n", "def f(state):\n    assert state == 1\n"),
    (rules.check_asserts, "a.py", "def decode(x):\n    assert x[0] == 1\n", "def decode(x):\n    assert x.log is not None\n"),
    (rules.check_asserts, "a.pyx", "def f(frame):\n    assert frame[0]\n", "def f(state):\n    assert state\n"),
    (rules.check_docstring, "a.py", "import os\n", '"""Purpose."""\nimport os\n'),
    (rules.check_docstring, "a.pyx", "# cython: x=1\nimport os\n", '# cython: x=1\n"""Purpose."""\n'),
    (rules.check_docstring, "a.h", "#pragma once\n", "/* Purpose. */\n#pragma once\n"),
    (rules.check_environment, "a.py", "import os\nx = os.environ['X']\n", "x = settings.x\n"),
    (rules.check_environment, "a.py", "from os import path, getenv\n", "from os import path\n"),
    (rules.check_clock, "a.py", "now = time.time()\n", "now = clock.now_ms()\n"),
    (rules.check_clock, "a.py", "now = datetime.now(UTC)\n", "now = datetime.fromtimestamp(x, UTC)\n"),
    (lambda it: rules.check_error_codes(it, ["TM-A-1000"]), "a.py", 'raise ApiError("TM-A-1001")\n', '"TM-A-1000"\n'),
    (
        lambda it: rules.check_errors_raised(it, [Source("b.py", 'raise ApiError("TM-A-1001")\n')]),
        "a.py",
        '    "TM-A-1001": 1,  # reserved\n    "TM-A-1002": 1,  # reserved\n',
        '    "TM-A-1001": 1,\n    "TM-A-1002": 1,  # reserved\n',
    ),
    (lambda it: rules.check_errors_raised(it, []), "a.py", '    "TM-A-1001": ErrorSpec(1),\n', '    "TM-A-1001": 1,  # reserved\n'),
    (lambda it: rules.check_changelog(it, "1.2.3"), "a.md", "## 1.2.30\n", "## 1.2.3 (2030-01-01)\n"),
    (
        lambda it: rules.check_make_commands(it, Source("Makefile", "run: build\n\techo\n")),
        "a.md",
        "    make fly\n",
        "`make run`, or make it yourself\n",
    ),
]


def test_page_that_no_other_links_to_is_found() -> None:
    page, other = Source("docs/a.md", "[a](a.md)\n"), Source("docs/b/c.md", "[a](../a.md#top)\n")
    assert [found.path for found in rules.check_linked([page], [page])] == ["docs/a.md"]
    assert not list(rules.check_linked([page], [page, other]))


@pytest.mark.parametrize(("check", "path", "bad", "good"), CASES)
def test_rule_bites_the_bad_and_spares_the_good(check: Check, path: str, bad: str, good: str) -> None:
    assert len(list(check(Source(path, bad)))) == 1
    assert list(check(Source(path, good))) == []


def arrows(path: str, text: str) -> list[Finding]:
    """Findings of check_arrows in a package that has the rooms of the design."""
    known = "app api api.sessions cli sessions keys store log log.record errors ids telemetry _core _core.table _core.clock"
    modules = {"tokmesh", *(f"tokmesh.{name}" for name in known.split())}
    return list(layers.check_arrows([Source(path, text)], frozenset(modules)))


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("tokmesh/_core/table.pyx", "from tokmesh.ids import redact\n"),
        ("tokmesh/_core/table.pxd", "from tokmesh.log cimport frames\n"),
        ("tokmesh/log/record.py", "from tokmesh.store import Store\n"),
        ("tokmesh/log/record.py", "from .. import sessions\n"),
        ("tokmesh/log/__init__.py", "from ..api import sessions\n"),
        ("tokmesh/sessions.py", "import tokmesh.api.sessions\n"),
        ("tokmesh/sessions.py", "def f():\n    from tokmesh import telemetry\n"),
        ("tokmesh/store.py", "import time\n"),
        ("tokmesh/store.py", "from tokmesh._core.clock import Clock\n"),
        ("tokmesh/api/sessions.py", "from tokmesh._core.table import Table\n"),
        ("tokmesh/api/sessions.py", "from tokmesh._core import table\n"),
        ("tokmesh/telemetry/catalog.py", "from tokmesh.sessions import Sessions\n"),
        ("tokmesh/app.py", "from tokmesh.cli import main\n"),
        ("tokmesh/store.py", "from tokmesh import __version__\n"),
        ("tokmesh/novelty.py", "import os\n"),
    ],
)
def test_wrong_arrow_is_found(path: str, text: str) -> None:
    assert arrows(path, text)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("tokmesh/_core/table.pyx", "from libc.stdint cimport int64_t\nfrom tokmesh._core.clock cimport Clock\nimport time\n"),
        ("tokmesh/api/sessions.py", "from tokmesh.sessions import Sessions\nfrom tokmesh import errors\n"),
        ("tokmesh/app.py", "from tokmesh import __version__, api, keys\n"),
        ("tokmesh/log/__init__.py", "from . import record\n"),
        ("tokmesh/store.py", "from tokmesh.log.record import decode\n"),
    ],
)
def test_right_arrow_is_left_alone(path: str, text: str) -> None:
    assert arrows(path, text) == []


def test_stated_arrow_that_nothing_takes_is_found() -> None:
    known = frozenset({"tokmesh", *(f"tokmesh.{room}" for room in layers.ARROWS if room)})
    lines = {room: [f"from tokmesh import {each or '__version__'}\n" for each in layers.ARROWS[room]] for room in layers.ARROWS}
    taken = {room: Source(f"tokmesh/{room}.py", "".join(lines[room])) for room in lines}
    assert not list(layers.check_arrows_used(taken.values(), known))
    taken["log"] = Source("tokmesh/log.py", "from tokmesh import storage, ids, _core\n")
    assert [found.message.split(":")[0] for found in layers.check_arrows_used(taken.values(), known)] == [
        "states an arrow from log to errors"
    ]


def test_arrow_that_goes_up_is_found() -> None:
    down = {"app": frozenset({"log"}), "log": frozenset({"errors"}), "errors": frozenset[str]()}
    assert not list(layers.check_order(down))
    assert len(list(layers.check_order({**down, "log": frozenset({"app", "errors"})}))) == 1


@pytest.mark.parametrize(
    "rows",
    [
        ("| `app.py` | x | `log` |",),
        ("| `log/` | x | nothing |", "| `app.py` | x | `log` |"),
        ("| `app.py` | x | nothing |", "| `log/` | x | nothing |"),
        ("| `app.py` | x | `log`, `cli` |", "| `log/` | x | nothing |"),
    ],
)
def test_room_that_the_architecture_tells_wrongly_is_found(rows: tuple[str, ...]) -> None:
    arrows = {"app": frozenset({"log", "errors"}), "log": frozenset({"errors"}), "errors": frozenset[str]()}
    right = "| `app.py` | x | `log` of theirs |\n| `log/` | x | nothing |\n"
    assert not list(layers.check_rooms(Source("A.md", right), arrows))
    assert len(list(layers.check_rooms(Source("A.md", "\n".join(rows)), arrows))) == 1


def test_functions_of_cython_are_found_with_their_parts() -> None:
    text = """
cdef class T:
    cdef inline uint64_t* f(self, int a=g(1)) noexcept nogil:
        return NULL

    async def h(self):
        pass
"""
    found = [(each.kind, each.name, each.return_type, each.line, each.line_count) for each in find_functions(text)]
    assert found == [("cdef", "f", "uint64_t*", 3, 2), ("async def", "h", "", 6, 2)]


def test_stub_differences_are_found_on_both_sides() -> None:
    module = types.ModuleType("m")
    exec("import os\nA = 1\nclass C:\n    def f(self): pass\n    def g(self): pass\n", vars(module))
    pyx = Source("m.pyx", "import os\n")
    pyi = Source("m.pyi", "B: int\nclass C:\n    def f(self) -> None: ...\n    def h(self) -> None: ...\n")
    told = {finding.message.split()[0] for finding in stubs.check_stub(module, pyx, pyi)}
    assert told == {"m.A", "m.B", "C.g", "C.h"}


def test_stub_that_disagrees_on_parameters() -> None:
    module = types.ModuleType("m")
    exec("def f(a, b=1): pass\ndef g(a, *, b=1): pass\nclass C:\n    def h(self, a): pass\n    def i(self): pass\n", vars(module))
    stub = "def f(a, b): ...\ndef g(b, *, a=...): ...\nclass C:\n    def h(self, c): ...\n    def i(self): ...\n"
    findings = list(stubs.check_stub(module, Source("m.pyx", ""), Source("m.pyi", stub)))
    assert [finding.message for finding in findings] == [
        "m.f takes (a, b=…)", "m.g takes (a, b=…)", "C.h takes (self, a)",
    ]  # fmt: skip
    right = "def f(a, b=...): ...\ndef g(a, *, b=...): ...\nclass C:\n    def h(self, a): ...\n    def i(self): ...\n"
    assert not list(stubs.check_stub(module, Source("m.pyx", ""), Source("m.pyi", right)))
