"""The specimen: chains B and D of PDB entry 4JSV, mTOR with mLST8 (147 kDa, about 88 x 103 x 115 Å).

Its coordinates ship in Debian's package python3-pdbfixer as test data, so that no download outside Debian is needed.
Chains B and D are the authors' biological unit 1 (REMARK 350 of the entry).
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

PACKAGE = "python3-pdbfixer"
INSIDE = "usr/lib/python3/dist-packages/pdbfixer/tests/data/4JSV.pdb"
CHAINS = ("B", "D")
ATOMIC_NUMBERS = {"C": 6, "N": 7, "O": 8, "P": 15, "S": 16, "SE": 34}  # hydrogen is left out

Array = np.ndarray[Any, np.dtype[Any]]


class NoSpecimen(RuntimeError):
    """The coordinates of the specimen could not be found or fetched; the message says what to do."""


def find(cache: Path, *, fetch: bool = True) -> Path:
    """Return the path of 4JSV.pdb: installed, in `cache`, or (with `fetch`) put there out of the Debian package.

    The package is unpacked, not installed. Raises NoSpecimen when there is no such file and none can be fetched.
    """
    for place in (Path("/") / INSIDE, cache / "4JSV.pdb"):
        if place.is_file():
            return place
    if not fetch:
        raise NoSpecimen(f"4JSV.pdb is neither installed ({PACKAGE}) nor in {cache}; give its path with --pdb")
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="specimen-") as folder:
        try:
            subprocess.run(
                ["apt-get", "-qq", "download", PACKAGE], cwd=folder, check=True, capture_output=True, text=True
            )
            package = next(Path(folder).glob(f"{PACKAGE}_*.deb"))
            subprocess.run(
                ["dpkg-deb", "-x", str(package), "tree"], cwd=folder, check=True, capture_output=True, text=True
            )
        except (OSError, StopIteration, subprocess.CalledProcessError) as error:
            why = (getattr(error, "stderr", "") or str(error)).strip().splitlines()[-1:] or [""]
            raise NoSpecimen(
                f"apt-get download {PACKAGE} did not work ({why[0]}); "
                "install that package, or give the path of 4JSV.pdb with --pdb"
            ) from error
        fresh = cache / ".4JSV.pdb.new"
        shutil.copyfile(Path(folder) / "tree" / INSIDE, fresh)
        fresh.replace(cache / "4JSV.pdb")
    return cache / "4JSV.pdb"


def atoms(path: Path, chains: tuple[str, ...] = CHAINS) -> tuple[Array, Array]:
    """Return centred positions (Å) and weights (atomic number x occupancy) of the heavy atoms of the protein.

    Reads the columns of ATOM records (www.wwpdb.org/documentation/file-format, version 3.3); ligands are HETATM.
    """
    found = []
    for line in path.read_text(encoding="ascii", errors="replace").splitlines():
        element = line[76:78].strip()
        if line.startswith("ENDMDL"):
            break
        if line.startswith("ATOM") and line[21] in chains and element in ATOMIC_NUMBERS:
            position = [float(line[column : column + 8]) for column in (30, 38, 46)]
            found.append([*position, ATOMIC_NUMBERS[element] * float(line[54:60])])
    if not found:
        raise NoSpecimen(f"{path} has no atoms in chains {', '.join(chains)}")
    table = np.array(found, float)
    positions, weights = table[:, :3], table[:, 3]
    return positions - (positions * weights[:, None]).sum(0) / weights.sum(), weights
