"""Prints the packages of an environment as JSON. Runs in that environment, which may be old and have no packages."""

from __future__ import annotations

import json
import re
import sys
import sysconfig
from importlib import metadata
from pathlib import Path

if __name__ == "__main__":
    own = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    packages: dict[str, object] = {}
    for found in metadata.distributions():
        name = found.metadata["Name"] if found.metadata else None
        if name:  # pip ignores packages with damaged metadata too; of two, the first is the one that is imported
            entry: dict[str, object] = {"version": found.version, "requires": found.requires or []}
            entry["own"] = str(found.locate_file("")) in own
            packages.setdefault(re.sub(r"[-_.]+", "-", name).lower(), entry)
    folders = [folder for folder in dict.fromkeys(sys.path) if Path(folder).name in ("site-packages", "dist-packages")]
    beside = [folder for folder in folders if folder not in own]
    print(json.dumps({"python": sys.version.split()[0], "packages": packages, "beside": beside}))
