"""Builds the CPU kernels if there is a C compiler; without one all else is installed."""

import sys
from pathlib import Path

from setuptools import Extension, setup

sys.path.insert(0, "daemon")
from gemmarunner.native.stamp import SOURCES, stamp

sources = SOURCES.resolve().relative_to(Path.cwd())

setup(
    ext_modules=[
        Extension(
            "gemmarunner.native._kernels",
            sources=sorted(str(path) for path in sources.glob("*.c")),
            depends=sorted(str(path) for path in sources.glob("*.h")),
            define_macros=[("GM_STAMP", f'"{stamp()}"')],
            extra_compile_args=["-O3", "-std=gnu11"],
            libraries=["m", "pthread"],
            optional=True,
        )
    ]
)
