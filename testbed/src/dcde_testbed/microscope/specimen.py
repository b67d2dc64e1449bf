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

import gemmi
import numpy as np

PACKAGE = "python3-pdbfixer"
INSIDE = "usr/lib/python3/dist-packages/pdbfixer/tests/data/4JSV.pdb"
CHAINS = ("B", "D")

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
    """Return centred positions (Å) and weights (atomic number x occupancy) of the heavy atoms."""
    structure = gemmi.read_structure(str(path))
    structure.setup_entities()
    structure.remove_hydrogens()
    structure.remove_ligands_and_waters()
    found = [
        (*atom.pos.tolist(), atom.element.atomic_number * atom.occ)
        for chain in structure[0]
        if not chains or chain.name in chains
        for residue in chain
        for atom in residue
    ]
    if not found:
        raise NoSpecimen(f"{path} has no atoms in chains {', '.join(chains)}")
    table = np.array(found, float)
    positions, weights = table[:, :3], table[:, 3]
    return positions - (positions * weights[:, None]).sum(0) / weights.sum(), weights
