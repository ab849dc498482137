"""Builds the extension modules of tokmesh/_core, one for each .pyx file found there.

TOKMESH_BUILD chooses the variant; the generated C and the objects of each live in their own folders under build/:

    release  (default) -O3 for any CPU of the architecture: a wheel runs on machines that did not build it
    debug    -O1 -g3, Cython's bounds, None and initialisation checks on, assertions on
    asan     debug under AddressSanitizer and UndefinedBehaviorSanitizer; the first finding ends the process
    none     no extension modules: an editable install of a tree whose modules `build_ext --inplace` builds

TOKMESH_WARNINGS=allow lets a build go on in spite of warnings, for a compiler newer than those this is tested with.
All other metadata is in pyproject.toml.
"""

import os
import sys
from pathlib import Path
from sysconfig import get_config_var

import Cython
from Cython.Build import cythonize
from Cython.Compiler import Options
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

CORE = Path("tokmesh/_core")
BUILD = Path("build")
EXT_SUFFIX = get_config_var("EXT_SUFFIX")
VARIANTS = ("release", "debug", "asan", "none")

# Directives that are the same everywhere, so that a variant never changes what the code means.
DIRECTIVES = {
    "language_level": "3",
    "cdivision": True,
    "wraparound": False,
    "embedsignature": True,
    "warn.maybe_uninitialized": True,
    "warn.multiple_declarators": True,
    "warn.unreachable": True,
    # warn.unused and warn.unused_result stay off: they take loop variables and out parameters for unused; cython-lint sees names.
}
CHECKS = ("boundscheck", "initializedcheck")  # nonecheck cannot be compiled into functions that run without the GIL

# What Cython's own output would be warned for; hand-written C is held to the rest of -Wall -Wextra.
GENERATED_C_WARNINGS = (
    "-Wno-unused-parameter",            # `self` and `kwds` of slots that do not use them
    "-Wno-missing-field-initializers",  # type objects and method tables initialised by their first members
    "-Wno-unused-function",             # helpers emitted for every module, used or not
)
COMPILE_ARGS = {
    "release": ("-O3", "-g0"),  # names stay, for perf and backtraces; what -g adds would not be kept, and takes a fifth longer
    "debug": ("-O1", "-g3", "-UNDEBUG"),
    "asan": (
        "-O1",
        "-g1",  # what a finding prints: functions and lines; -g3 takes a third longer to compile
        "-UNDEBUG",
        "-U_FORTIFY_SOURCE",  # its checked copies would hide the plain ones from the sanitizer
        "-fno-omit-frame-pointer",
        "-fsanitize=address,undefined",
        "-fno-sanitize-recover=undefined",
    ),
}
LINK_ARGS = {
    "release": (),
    "debug": (),
    "asan": ("-fsanitize=address,undefined",),
}


class BuildExtension(build_ext):
    """Compiles on all cores, and anew when the variant of the tree changes (a file in place does not tell its own)."""

    def finalize_options(self) -> None:
        super().finalize_options()
        if self.parallel is None:
            self.parallel = core_count()
        self.build_temp = f"{self.build_temp}-{variant}"

    def run(self) -> None:
        stamp = BUILD / "variant"
        if self.inplace:
            previous = stamp.read_text() if stamp.exists() else variant
            self.force = bool(self.force) or previous != variant
        super().run()
        if self.inplace:
            stamp.parent.mkdir(exist_ok=True)
            stamp.write_text(variant)


def announce(extensions: list[Extension]) -> None:
    """Says before a build in place what will be compiled, by setuptools' rule of what is old: it takes minutes in silence."""
    stale = []
    for each in extensions:
        built = CORE / (each.name.rpartition(".")[2] + EXT_SUFFIX)
        if is_older(built, each.sources + each.depends):
            stale.append(each)
    if stale:
        time = ": a minute or two" if len(stale) > len(extensions) // 2 else ""
        print(f"Compiling {len(stale)} of {len(extensions)} extension modules on {core_count()} cores{time}", file=sys.stderr)


def is_older(built: Path, sources: list[str]) -> bool:
    """Whether a file is missing, or older than one of those it is made from."""
    return not built.exists() or any(Path(source).stat().st_mtime > built.stat().st_mtime for source in sources)


def core_count() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0))


def chosen_variant() -> str:
    """The value of TOKMESH_BUILD; ends the build when it is none of VARIANTS."""
    name = os.environ.get("TOKMESH_BUILD", "release")
    if name not in VARIANTS:
        sys.exit(f"TOKMESH_BUILD={name}: must be one of {', '.join(VARIANTS)}")
    return name


def core_extensions() -> list[Extension]:
    """One extension for each .pyx of the core; each depends on every header and .pxd there, and on the flags here."""
    warning_args = ["-Wall", "-Wextra", *GENERATED_C_WARNINGS]
    if warnings_are_errors:
        warning_args.append("-Werror")
    return [
        Extension(
            f"tokmesh._core.{source.stem}",
            [str(source)],
            include_dirs=[str(CORE)],
            depends=["setup.py", *(str(path) for path in sorted(CORE.glob("*.h")) + sorted(CORE.glob("*.pxd")))],
            extra_compile_args=[*COMPILE_ARGS[variant], *warning_args],
            extra_link_args=list(LINK_ARGS[variant]),
        )
        for source in sorted(CORE.glob("*.pyx"))
    ]


variant = chosen_variant()
warnings_are_errors = os.environ.get("TOKMESH_WARNINGS") != "allow"
Options.warning_errors = warnings_are_errors

if "--inplace" in sys.argv and variant != "none":
    announce(core_extensions())

setup(
    cmdclass={"build_ext": BuildExtension},
    ext_modules=[]
    if variant == "none"
    else cythonize(
        core_extensions(),
        nthreads=core_count(),
        quiet=True,
        annotate=os.environ.get("TOKMESH_ANNOTATE") == "1",
        build_dir=str(BUILD / f"cython-{Cython.__version__}-{variant}"),
        compiler_directives={**DIRECTIVES, **dict.fromkeys(CHECKS, variant != "release")},
    ),
)
