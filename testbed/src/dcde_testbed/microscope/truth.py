"""What is written of a session: movies, gain reference, and the truth (map, particles, optics, drift, signal level)."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np

from dcde_testbed.microscope import physics
from dcde_testbed.microscope.exposure import Micrograph, Session

SNR_DEFINITION = (
    "variance of the noise-free, CTF-modulated, damage-faded particle signal of the summed exposure, over all pixels "
    "inside circles of particle_diameter around the particles, divided by the variance of all noise (detector and "
    "ice) of the summed exposure, both band-limited to the Nyquist frequency of snr_pixel"
)
_COLUMNS = ("rlnMicrographName", "rlnCoordinateX", "rlnCoordinateY", "rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi",
            "rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle")  # fmt: skip


def movie_name(number: int) -> str:
    """Return the file name of movie `number`, without its ending."""
    return f"movie_{number:03d}"


def write_mrc(path: Path, data: np.ndarray[Any, np.dtype[Any]], pixel: float) -> None:
    """Write an MRC file under a temporary name, then give it its own: a file that is there is whole."""
    fresh = path.with_name(f".{path.name}.new")
    with mrcfile.new(fresh, overwrite=True) as file:
        file.set_data(data)
        file.voxel_size = pixel
    fresh.replace(path)


def write_particles(path: Path, shots: list[Micrograph]) -> None:
    """Write the true particles as a STAR table: coordinates in raw pixels, angles in degrees, defoci in Å."""
    lines = ["", "data_particles", "", "loop_", *(f"_{name} #{i}" for i, name in enumerate(_COLUMNS, 1))]
    for number, shot in enumerate(shots, 1):
        optics = f"{shot.defocus_u:.2f} {shot.defocus_v:.2f} {shot.angle:.3f}"
        lines += [
            f"{movie_name(number)} {p['x']:.3f} {p['y']:.3f} {p['rot']:.4f} {p['tilt']:.4f} {p['psi']:.4f} {optics}"
            for p in shot.particles
        ]
    path.write_text("\n".join(lines) + "\n")


def write_session(session: Session, positions: Any, weights: Any, movies: Path, truth: Path) -> dict[str, Any]:
    """Expose and write all movies into `movies` and the truth into `truth`; return what truth.json says."""
    movies.mkdir(parents=True, exist_ok=True)
    truth.mkdir(parents=True, exist_ok=True)
    settings = session.settings
    write_mrc(movies / "gain.mrc", session.gain, settings.pixel)
    write_mrc(
        truth / "truth_map.mrc",
        physics.density(positions, weights, 64, settings.pixel).astype(np.float32),
        settings.pixel,
    )
    shots = []
    for number in range(1, session.movies + 1):
        shot = session.expose(number)
        write_mrc(movies / f"{movie_name(number)}.mrcs", shot.movie, settings.pixel)
        shot.movie = shot.movie[:0]
        shots.append(shot)
    write_particles(truth / "truth_particles.star", shots)
    told = {
        "specimen": "PDB 4JSV, chains B and D: mTOR with mLST8",
        "seed": session.seed,
        "settings": asdict(settings),
        "optics": {
            "voltage_kv": physics.VOLTAGE_KV, "cs_mm": physics.CS_MM, "amplitude_contrast": physics.AMPLITUDE_CONTRAST,
        },
        "snr": settings.snr,
        "snr_definition": SNR_DEFINITION,
        "gain_convention": "corrected frame = raw frame x gain.mrc",
        "particles": sum(len(shot.particles) for shot in shots),
        "extent": np.ptp(positions, axis=0).round(1).tolist(),
        "micrographs": [
            {"name": movie_name(number), "particles": len(shot.particles), "defocus_u": shot.defocus_u,
             "defocus_v": shot.defocus_v, "astigmatism_angle": shot.angle, "drift_x": shot.drift_x,
             "drift_y": shot.drift_y, "snr_raw_pixel": shot.snr_raw_pixel}
            for number, shot in enumerate(shots, 1)
        ],
    }  # fmt: skip
    text = json.dumps(told, indent=1)
    (truth / "truth.json").write_text(text + "\n")
    found: dict[str, Any] = json.loads(text)
    return found
