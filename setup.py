"""Builds the CPU kernels if there is a C compiler; without one all else is installed."""

from pathlib import Path

from setuptools import Extension, setup

SOURCES = Path("daemon/gemmarunner/native/src")

setup(
    ext_modules=[
        Extension(
            "gemmarunner.native._kernels",
            sources=sorted(str(path) for path in SOURCES.glob("*.c")),
            depends=sorted(str(path) for path in SOURCES.glob("*.h")),
            extra_compile_args=["-O3", "-std=gnu11"],
            libraries=["m", "pthread"],
            optional=True,
        )
    ]
)
