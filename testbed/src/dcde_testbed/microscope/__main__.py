"""Make a set of movies: `python -m dcde_testbed.microscope --out DIR [--truth DIR] [--movies N] [--seed N] ...`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from dcde_testbed.microscope import specimen
from dcde_testbed.microscope.exposure import Session, Settings
from dcde_testbed.microscope.truth import write_session


def parser() -> argparse.ArgumentParser:
    """Return the options of the command."""
    made = argparse.ArgumentParser(prog="python -m dcde_testbed.microscope", description=__doc__)
    usual = Settings()
    made.add_argument("--out", type=Path, required=True, help="folder for movie_NNN.mrcs and gain.mrc")
    made.add_argument(
        "--truth", type=Path, help="folder for truth.json, truth_map.mrc, truth_particles.star (default: --out)"
    )
    made.add_argument("--movies", type=int, default=8, help="how many movies (default 8)")
    made.add_argument("--seed", type=int, default=1)
    made.add_argument(
        "--snr", type=float, default=usual.snr, help="see snr_definition in truth.json (default %(default)s)"
    )
    made.add_argument("--size", type=int, default=usual.size, help="pixels of a frame's side (default %(default)s)")
    made.add_argument("--frames", type=int, default=usual.frames, help="default %(default)s")
    made.add_argument("--pdb", type=Path, help="path of 4JSV.pdb (default: from Debian's python3-pdbfixer)")
    cache = Path(os.environ.get("DCDE_CACHE", Path.home() / ".cache" / "dcde-testbed"))
    made.add_argument(
        "--cache", type=Path, default=cache, help="where 4JSV.pdb is kept once fetched (default %(default)s)"
    )
    return made


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    options = parser().parse_args(arguments)
    if not 1 <= options.movies <= 999 or options.size < 256 or options.frames < 1 or options.snr <= 0:
        print(
            "microscope: --movies is 1 to 999, --size at least 256, --frames at least 1, --snr above 0", file=sys.stderr
        )
        return 2
    try:
        positions, weights = specimen.atoms(options.pdb or specimen.find(options.cache))
    except (specimen.NoSpecimen, OSError) as error:
        print(f"microscope: {error}", file=sys.stderr)
        return 1
    settings = Settings(snr=options.snr, size=options.size, frames=options.frames)
    session = Session(positions, weights, settings, movies=options.movies, seed=options.seed)
    told = write_session(session, positions, weights, options.out, options.truth or options.out)
    print(f"{options.movies} movies, {told['particles']} particles, SNR {options.snr}, in {options.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
