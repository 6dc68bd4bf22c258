"""Stores for tests."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from support.abilities import has_subordinate_ids


def delete_tree(folder: Path) -> None:
    """Delete a store, with the files in it that belong to subordinate ids or have mode 0."""
    if not folder.exists():
        return
    if os.getuid() != 0 and has_subordinate_ids():
        subprocess.run(["unshare", "--map-auto", "--map-root-user", "rm", "-rf", folder], check=True)
        return
    for parent, names, _ in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            if not path.is_symlink():
                path.chmod(0o700)
    shutil.rmtree(folder)
