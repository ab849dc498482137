"""The house rules, held against the repository. A failure lists every place, as path:line: what to do."""

import importlib
from collections.abc import Iterable
from pathlib import PurePath

import pytest

from tests.tidy import layers, rules, stubs
from tests.tidy.sources import Finding, Source, read_sources
from tokmesh import __version__
from tokmesh.errors import ERRORS

SOURCES = read_sources()
BY_PATH = {source.path: source for source in SOURCES}
CODE_SUFFIXES = (".py", ".pyx", ".pxd", ".h")
# Those of the package: the benchmarks compile loops of their own when they run, and import them by no name.
EXTENSION_MODULES = sorted(each.module for each in SOURCES if each.suffix == ".pyx" and each.path.startswith("tokmesh/"))


def select(*suffixes: str, under: tuple[str, ...] = ("",)) -> list[Source]:
    """Sources with one of `suffixes` whose path starts with one of `under`."""
    return [source for source in SOURCES if source.suffix in suffixes and source.path.startswith(under)]


def assert_none(findings: Iterable[Finding]) -> None:
    """Fails with the list of findings."""
    listed = [str(finding) for finding in findings]
    assert not listed, "\n".join(["", *listed])


def test_files_are_short() -> None:
    assert_none(found for each in select(*CODE_SUFFIXES, ".pyi") for found in rules.check_file_length(each))


def test_granted_long_files_exist_and_need_the_grant() -> None:
    for path, (limit, reason) in rules.LONG_FILES.items():
        assert reason
        assert rules.FILE_LINES_MAX < len(BY_PATH[path].lines) <= limit


def test_functions_are_short() -> None:
    assert_none(found for each in select(*CODE_SUFFIXES) for found in rules.check_function_length(each))


def test_c_functions_state_their_exception_contract() -> None:
    assert_none(found for each in select(".pyx", ".pxd") for found in rules.check_exception_contracts(each))


def test_cython_without_includes_and_macros() -> None:
    assert_none(found for each in select(".pyx", ".pxd") for found in rules.check_cython_constructs(each))


def test_nothing_unfinished() -> None:
    assert_none(found for each in SOURCES for found in rules.check_unfinished(each))


def test_no_path_of_one_machine() -> None:
    assert_none(found for each in SOURCES for found in rules.check_machine_paths(each))


def test_no_word_of_texts_that_are_not_here() -> None:
    assert_none(found for each in SOURCES for found in rules.check_foreign_texts(each))


def test_no_assertion_on_what_came_from_outside() -> None:
    assert_none(found for each in select(".py", ".pyx", under=("tokmesh/",)) for found in rules.check_asserts(each))


def test_files_open_with_their_purpose() -> None:
    named = [each for each in select(".py", ".pyx", ".h") if not (each.path.endswith("__init__.py") and not each.text)]
    assert_none(found for each in named for found in rules.check_docstring(each))


def test_only_config_reads_the_environment() -> None:
    others = [each for each in select(".py", ".pyx", under=("tokmesh/",)) if each.path != "tokmesh/config/loading.py"]
    assert_none(found for each in others for found in rules.check_environment(each))


def test_time_is_passed_in() -> None:
    # A command is a process of its own beside the server; its clock is the machine's.
    serving = [each for each in select(".py", ".pyx", under=("tokmesh/",)) if not each.path.startswith("tokmesh/cli/")]
    assert_none(found for each in serving for found in rules.check_clock(each))


def test_arrows_between_modules() -> None:
    package = select(".py", ".pyx", ".pxd", under=("tokmesh/",))
    known_modules = frozenset(source.module for source in package)
    assert_none(layers.check_arrows(package, known_modules))
    assert_none(layers.check_arrows_used(package, known_modules))


def test_arrows_go_down_and_the_architecture_tells_them() -> None:
    assert_none(layers.check_order(layers.ARROWS))
    assert_none(layers.check_rooms(BY_PATH["ARCHITECTURE.md"], layers.ARROWS))


def test_error_codes_are_in_the_table() -> None:
    written = [*select(".py", ".pyx", under=("tokmesh/",)), *select(".md")]
    assert_none(found for each in written for found in rules.check_error_codes(each, ERRORS))


def test_every_error_is_raised_or_reserved() -> None:
    others = [each for each in select(".py", ".pyx", under=("tokmesh/",)) if each.path != "tokmesh/errors.py"]
    assert_none(rules.check_errors_raised(BY_PATH["tokmesh/errors.py"], others))


def test_documented_make_commands_exist() -> None:
    assert_none(found for each in select(".md") for found in rules.check_make_commands(each, BY_PATH["Makefile"]))


def test_every_page_of_the_documentation_is_linked() -> None:
    # A runbook is led to by its alert: tests/observability/test_rules.py.
    pages = [each for each in select(".md", under=("docs/",)) if not each.path.startswith("docs/runbooks/")]
    assert_none(rules.check_linked(pages, select(".md")))


def test_changelog_tells_of_this_version() -> None:
    assert_none(rules.check_changelog(BY_PATH["CHANGELOG.md"], __version__))


def test_every_extension_module_has_declarations() -> None:
    missing = [name for name in EXTENSION_MODULES if f"{name.replace('.', '/')}.pyi" not in BY_PATH]
    assert not missing


def test_every_stub_belongs_to_an_extension_module() -> None:
    orphans = [each.path for each in select(".pyi") if str(PurePath(each.path).with_suffix(".pyx")) not in BY_PATH]
    assert not orphans


@pytest.mark.parametrize("name", EXTENSION_MODULES)
def test_stub_declares_what_the_module_has(name: str) -> None:
    stem = name.replace(".", "/")
    assert_none(stubs.check_stub(importlib.import_module(name), BY_PATH[f"{stem}.pyx"], BY_PATH[f"{stem}.pyi"]))
