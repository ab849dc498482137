"""Builds a .pyx of the benchmarks into a folder and imports it from there; none of them is part of the package."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from Cython.Build import cythonize
from setuptools import Distribution, Extension  # type: ignore[import-untyped]
from setuptools.command.build_ext import build_ext  # type: ignore[import-untyped]

ROOT = Path(__file__).resolve().parents[1]


def build(source: Path, directory: Path) -> ModuleType:
    """The compiled module of `source`, a file below benchmarks/; needs a C compiler, as the package itself does."""
    name = ".".join(source.relative_to(ROOT).with_suffix("").parts)
    core = ROOT / "tokmesh" / "_core"
    extension = Extension(name, [str(source)], include_dirs=[str(core)], extra_compile_args=["-O3", "-w"])
    options = {"build_dir": str(directory / "c"), "include_path": [str(ROOT)], "quiet": True, "force": True}
    [prepared] = cythonize([extension], **options)  # type: ignore[no-untyped-call]
    command = build_ext(Distribution({"name": source.stem, "ext_modules": [prepared]}))
    command.build_lib = str(directory)
    command.build_temp = str(directory / "objects")
    command.verbose = False
    command.ensure_finalized()
    command.run()
    spec = importlib.util.spec_from_file_location(name, command.get_ext_fullpath(name))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
