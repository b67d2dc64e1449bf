"""The testbed's microscope on a made-up specimen: what it writes is what the truth says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest
from dcde_testbed.microscope import __main__ as command
from dcde_testbed.microscope import physics, specimen
from dcde_testbed.microscope.exposure import Micrograph, Session, Settings
from dcde_testbed.microscope.truth import write_session

RNG = np.random.default_rng(5)
POSITIONS = RNG.normal(0, 16, (1500, 3)) * (1, 1.3, 0.7)
WEIGHTS = np.full(1500, 7.0)


def session(*, seed: int = 3, movies: int = 1, **changed: Any) -> Session:
    settings = Settings(size=384, frames=4, **changed)
    return Session(POSITIONS, WEIGHTS, settings, movies=movies, seed=seed)


@pytest.fixture(scope="module")
def shot() -> Micrograph:
    return session(snr=20.0).expose(1)


def corrected(made: Session, movie: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.asarray(movie.astype(float) * made.gain)


def test_the_same_seed_makes_the_same_movie() -> None:
    first, again, other = session().expose(1), session(movies=7).expose(1), session(seed=4).expose(1)
    assert np.array_equal(first.movie, again.movie)
    assert not np.array_equal(first.movie, other.movie)
    assert first.movie.dtype == np.int16 and first.movie.shape == (4, 384, 384)


def test_the_gain_reference_matters(shot: Micrograph) -> None:
    made = session(snr=20.0)
    blind = np.corrcoef(shot.movie.mean(0).ravel(), (1 / made.gain).ravel())[0, 1]
    right = np.corrcoef(corrected(made, shot.movie).mean(0).ravel(), (1 / made.gain).ravel())[0, 1]
    assert blind > 0.2 and abs(right) < 0.05
    assert made.gain.mean() == pytest.approx(1, abs=1e-4) and made.gain.std() == pytest.approx(0.03, rel=0.01)


def test_the_drift_is_what_the_truth_says(shot: Micrograph) -> None:
    frames = corrected(session(snr=20.0), shot.movie)
    spectra = np.fft.rfft2(frames - frames.mean(axis=(1, 2), keepdims=True))
    peak = np.fft.irfft2(np.conj(spectra[0]) * spectra[-1])
    y, x = np.unravel_index(peak.argmax(), peak.shape)
    moved = [(int(v) + 192) % 384 - 192 for v in (x, y)]
    told = [(d[-1] - d[0]) / 3.0 for d in (shot.drift_x, shot.drift_y)]
    assert np.allclose(moved, told, atol=1)
    assert np.hypot(*told) > 1.5


def test_protein_is_dark_where_the_truth_says(shot: Micrograph) -> None:
    frames = corrected(session(snr=20.0), shot.movie)
    image = frames[0] - frames[0].mean()
    axis = np.fft.fftfreq(384)
    blur = np.exp(-2 * np.pi**2 * 8**2 * (axis[:, None] ** 2 + axis**2))
    image = np.fft.ifft2(np.fft.fft2(image) * blur).real
    there = [image[round(p["y"]), round(p["x"])] for p in shot.particles]
    assert len(there) >= 15
    assert np.mean(there) < -1.0 * image.std()


def test_particles_keep_their_distance(shot: Micrograph) -> None:
    places = np.array([(p["x"], p["y"]) for p in shot.particles])
    apart = np.hypot(*(places[:, None] - places[None]).transpose(2, 0, 1))
    assert apart[~np.eye(len(places), dtype=bool)].min() >= 150 / 3.0


def test_the_signal_level_is_the_stated_one() -> None:
    """Two exposures of one seed differ only in the noise's level, so that their difference gives signal and noise."""
    made = session(snr=0.5)
    shot, clear = made.expose(1), session(snr=5000.0).expose(1)
    noisy, clean = (np.asarray(s.movie.astype(float) * made.gain).sum(0) for s in (shot, clear))
    spectrum = [np.fft.rfft2(image - image.mean()) for image in (noisy, clean)]
    s2 = np.fft.fftfreq(384, 3.0)[:, None] ** 2 + np.fft.rfftfreq(384, 3.0)[None] ** 2
    noisy, clean = (np.fft.irfft2(f * (s2 < (0.5 / 4.5) ** 2)) for f in spectrum)
    yy, xx = np.mgrid[:384, :384]
    near = np.any([(yy - p["y"]) ** 2 + (xx - p["x"]) ** 2 < (65 / 3) ** 2 for p in shot.particles], axis=0)
    scale = (noisy * clean).sum() / (clean**2).sum()
    noise = noisy - scale * clean
    assert (scale * clean)[near].var() / noise.var() == pytest.approx(0.5, rel=0.25)


def test_rotation_is_relions() -> None:
    turned = physics.rotation(30, 0, 0) @ [1, 0, 0]
    assert np.allclose(turned, [np.cos(np.pi / 6), -np.sin(np.pi / 6), 0])
    any_one = physics.rotation(10, 50, -70)
    assert np.allclose(any_one @ any_one.T, np.eye(3)) and np.linalg.det(any_one) == pytest.approx(1)


def test_density_and_deposit_agree() -> None:
    volume = physics.density(POSITIONS, WEIGHTS, 48, 3.0)
    flat = physics.deposit(POSITIONS[:, :2] / 3.0, WEIGHTS, 48)
    s2 = np.fft.fftfreq(48, 3.0)[:, None] ** 2 + np.fft.rfftfreq(48, 3.0)[None] ** 2
    coarse = np.exp(-s2 * 15**2 / 2)  # beyond it the two grids interpolate differently
    flat = np.fft.irfft2(np.fft.rfft2(flat) * physics.atom_transfer(s2) * coarse)
    projected = np.fft.irfft2(np.fft.rfft2(volume.sum(0)) * coarse)
    assert np.corrcoef(projected.ravel(), flat.ravel())[0, 1] > 0.99


def test_damage_takes_fine_detail_first() -> None:
    fine, coarse = physics.damage(np.array([1 / 5.0**2, 1 / 30.0**2]), 20)
    assert 0 < fine < 0.3 < 0.8 < coarse < 1


def test_what_is_written(tmp_path: Path) -> None:
    made = session(movies=2)
    told = write_session(made, POSITIONS, WEIGHTS, tmp_path / "movies", tmp_path / "truth")
    assert sorted(p.name for p in (tmp_path / "movies").iterdir()) == ["gain.mrc", "movie_001.mrcs", "movie_002.mrcs"]
    with mrcfile.open(tmp_path / "movies/movie_002.mrcs") as movie:
        assert movie.data.shape == (4, 384, 384) and float(movie.voxel_size.x) == 3.0
    assert json.loads((tmp_path / "truth/truth.json").read_text()) == told
    assert told["snr"] == 0.4 and "band-limited" in told["snr_definition"]
    lines = (tmp_path / "truth/truth_particles.star").read_text().splitlines()
    assert sum(line.startswith("movie_") for line in lines) == told["particles"]
    assert mrcfile.read(tmp_path / "truth/truth_map.mrc").shape == (64, 64, 64)


@pytest.mark.parametrize("wrong", [["--movies", "0"], ["--snr", "0"], ["--size", "9"]])
def test_nonsense_is_refused(wrong: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--out", str(tmp_path / "x"), *wrong]) == 2
    assert "--movies is 1 to 999" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_a_missing_specimen_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--out", str(tmp_path / "x"), "--pdb", str(tmp_path / "none.pdb")]) == 1
    assert "none.pdb" in capsys.readouterr().err
    if not (Path("/") / specimen.INSIDE).exists():
        with pytest.raises(specimen.NoSpecimen, match="--pdb"):
            specimen.find(tmp_path, fetch=False)


def test_the_cached_specimen_is_found(tmp_path: Path) -> None:
    (tmp_path / "4JSV.pdb").write_text("END\n")
    if not (Path("/") / specimen.INSIDE).exists():
        assert specimen.find(tmp_path, fetch=False) == tmp_path / "4JSV.pdb"
