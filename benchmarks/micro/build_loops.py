"""Builds core_loops.pyx into a folder and imports it from there."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from Cython.Build import cythonize
from setuptools import Distribution, Extension  # type: ignore[import-untyped]
from setuptools.command.build_ext import build_ext  # type: ignore[import-untyped]

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
NAME = "benchmarks.micro.core_loops"


def build(directory: Path) -> ModuleType:
    """The compiled module; needs a C compiler, as the package itself does."""
    core = ROOT / "tokmesh" / "_core"
    extension = Extension(
        NAME, [str(HERE / "core_loops.pyx")], include_dirs=[str(core)], extra_compile_args=["-O3", "-w"]
    )
    options = {"build_dir": str(directory / "c"), "include_path": [str(ROOT)], "quiet": True, "force": True}
    [prepared] = cythonize([extension], **options)  # type: ignore[no-untyped-call]
    command = build_ext(Distribution({"name": "core-loops", "ext_modules": [prepared]}))
    command.build_lib = str(directory)
    command.build_temp = str(directory / "objects")
    command.verbose = False
    command.ensure_finalized()
    command.run()
    path = command.get_ext_fullpath(NAME)
    spec = importlib.util.spec_from_file_location(NAME, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[NAME] = module
    spec.loader.exec_module(module)
    return module
