"""Fetch the pinned Swagger UI from npm into the package, with a list of checksums.

Run it after changing VERSION and INTEGRITY (``npm view swagger-ui-dist@VERSION dist.integrity``):

    python scripts/update_swagger_ui.py
"""

from __future__ import annotations

import base64
import hashlib
import subprocess
import tarfile
import tempfile
from pathlib import Path

VERSION = "5.35.0"
INTEGRITY = "sha512-U06rpMtW9V3XPGOBeamTUSr0Z09jMX4IJuANpE/EZbAhw0G8CgwrzU4YmXkn/h0wCDNsXdGarTNNHC3sU8yVUQ=="
FILES = (
    "LICENSE",
    "NOTICE",
    "swagger-ui-bundle.js",
    "swagger-ui-bundle.js.LICENSE.txt",
    "swagger-ui-standalone-preset.js",
    "swagger-ui-standalone-preset.js.LICENSE.txt",
    "swagger-ui.css",
)
TARGET = Path(__file__).parent.parent / "src/hotswap/server/assets/swagger-ui"


def fetch(folder: Path) -> Path:
    """The package's archive, checked against INTEGRITY."""
    subprocess.run(
        ["npm", "pack", "--silent", f"swagger-ui-dist@{VERSION}"], cwd=folder, check=True
    )
    archive = next(folder.glob("*.tgz"))
    digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if f"sha512-{digest}" != INTEGRITY:
        raise SystemExit(f"swagger-ui-dist {VERSION} is not what INTEGRITY says: sha512-{digest}")
    return archive


def main() -> None:
    """Replace the files and write SHA256SUMS (which ``sha256sum -c`` reads)."""
    TARGET.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as temporary,
        tarfile.open(fetch(Path(temporary))) as archive,
    ):
        for name in FILES:
            member = archive.extractfile(f"package/{name}")
            if member is None:
                raise SystemExit(f"swagger-ui-dist {VERSION} has no {name}")
            (TARGET / name).write_bytes(member.read())
    sums = [f"{hashlib.sha256((TARGET / n).read_bytes()).hexdigest()}  {n}\n" for n in FILES]
    (TARGET / "SHA256SUMS").write_text("".join(sums), encoding="ascii")
    (TARGET / "VERSION").write_text(f"swagger-ui-dist {VERSION}\n", encoding="ascii")


if __name__ == "__main__":
    main()
