"""What an environment holds, as JSON. Its own python runs this, which may lack every package and be an old one."""

from __future__ import annotations

import json
import re
import sys
import sysconfig
from importlib import metadata
from pathlib import Path
from typing import Any


def inventory() -> dict[str, Any]:
    """The packages that it sees, which of them are its own, and the folders that it sees the others in."""
    own = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    packages: dict[str, Any] = {}
    for package in metadata.distributions():
        name = package.metadata["Name"] if package.metadata else None
        if name:  # one whose metadata is damaged is none for pip either
            entry = {
                "version": package.version or "",
                "requires": package.requires or [],
                "own": str(package.locate_file("")) in own,
            }
            # The first that is found is the one that is imported.
            packages.setdefault(re.sub(r"[-_.]+", "-", name).lower(), entry)
    folders = [folder for folder in dict.fromkeys(sys.path) if Path(folder).name in ("site-packages", "dist-packages")]
    beside = [folder for folder in folders if folder not in own]
    return {"python": sys.version.split()[0], "packages": packages, "beside": beside}


if __name__ == "__main__":
    print(json.dumps(inventory()))
