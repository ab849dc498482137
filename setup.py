"""Builds the extension modules of tokmesh/_core, one per .pyx file found there."""

from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

CORE = Path("tokmesh/_core")

extensions = [
    Extension(
        f"tokmesh._core.{source.stem}",
        [str(source)],
        include_dirs=[str(CORE)],
        depends=[str(path) for path in sorted(CORE.glob("*.h")) + sorted(CORE.glob("*.pxd"))],
        extra_compile_args=["-O3", "-Wall", "-Wextra", "-Wno-unused-parameter"],
    )
    for source in sorted(CORE.glob("*.pyx"))
]

setup(
    ext_modules=cythonize(
        extensions,
        compiler_directives={
            "language_level": "3",
            "boundscheck": False,
            "wraparound": False,
            "cdivision": True,
            "initializedcheck": False,
            "embedsignature": True,
        },
    )
)
