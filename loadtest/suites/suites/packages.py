"""Debian's packages that the suites need, installed when what they bring is not there."""

from __future__ import annotations

import os
import pathlib
import shutil

from suites.work import must, say


def need(home: pathlib.Path, *wanted: tuple[str, str]) -> None:
    """Installs each package whose program (a name) or header (a name in .h) is missing."""
    missing = sorted({package for what, package in wanted if not _there(what)})
    if missing:
        say(f"installing {' '.join(missing)}")
        sudo = [] if os.geteuid() == 0 else ["sudo"]
        home.mkdir(parents=True, exist_ok=True)
        must([*sudo, "apt-get", "update", "-q"], log=home / "apt-update.log")
        must([*sudo, "apt-get", "install", "-qy", "--no-install-recommends", *missing],
             log=home / "apt-install.log", DEBIAN_FRONTEND="noninteractive")


def _there(what: str) -> bool:
    if what.endswith(".h"):
        return any((pathlib.Path(root) / what).exists() for root in ("/usr/include", "/usr/local/include"))
    return shutil.which(what) is not None
