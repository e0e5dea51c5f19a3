"""Everything else is in pyproject.toml: this puts the folders beside the package into wheels."""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SHIPPED = ("profiles", "lut")  # where hwprune/shipped.py finds them again


class BuildWithShipped(build_py):
    """Copies target profiles and latency tables into `hwprune/share/`."""

    def run(self) -> None:
        """Build as usual, then copy; an editable installation reads the checkout's own folders."""
        super().run()
        if not self.editable_mode:
            for name in SHIPPED:
                shutil.copytree(
                    Path(__file__).parent / name,
                    Path(self.build_lib, "hwprune", "share", name),
                    dirs_exist_ok=True,
                )


setup(cmdclass={"build_py": BuildWithShipped})
