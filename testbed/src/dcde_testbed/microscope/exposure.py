"""One micrograph: where the particles lie, what the detector records of them frame by frame."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dcde_testbed.microscope import physics

Array = np.ndarray[Any, np.dtype[Any]]

MARGIN = 32  # pixels simulated beyond each edge, so that motion brings in more specimen and nothing wraps around
TRIES = 6000  # places tried for particles of one micrograph
MEAN_COUNT, COUNT_SPREAD = 200.0, 20.0  # of one pixel in one frame


@dataclass(frozen=True)
class Settings:
    """What all movies of a session have in common. Lengths in Å, exposure in e/Å², the B-factor in Å²."""

    pixel: float = 3.0
    size: int = 768
    frames: int = 8
    dose_per_frame: float = 2.5
    drift: float = 12.0
    defocus: tuple[float, float] = (10_000.0, 22_000.0)
    spacing: float = 150.0
    particle_diameter: float = 130.0
    snr: float = 0.4
    snr_pixel: float = 4.5
    ice_share: float = 0.2
    b_factor: float = 150.0
    gain_spread: float = 0.03


@dataclass
class Micrograph:
    """The truth about one movie: optics, drift, particles, and the movie itself (frames, y, x; int16)."""

    defocus_u: float
    defocus_v: float
    angle: float
    drift_x: list[float] = field(default_factory=list)
    drift_y: list[float] = field(default_factory=list)
    particles: list[dict[str, float]] = field(default_factory=list)
    snr_raw_pixel: float = 0.0
    movie: Array = field(default_factory=lambda: np.zeros((0, 0, 0), np.int16))


class Session:
    """A session at the microscope: one specimen, one gain reference, one sequence of micrographs from one seed."""

    def __init__(self, positions: Array, weights: Array, settings: Settings, *, movies: int, seed: int) -> None:
        self.settings, self.movies, self.seed = settings, movies, seed
        self._positions, self._weights = positions / settings.pixel, weights
        self._reach = 2 * int(np.ceil(np.linalg.norm(self._positions, axis=1).max() + 3))
        self._size = settings.size + 2 * MARGIN
        self._fy = np.fft.fftfreq(self._size, settings.pixel)[:, None]
        self._fx = np.fft.rfftfreq(self._size, settings.pixel)[None]
        self._s2 = self._fx**2 + self._fy**2
        self._transfer = physics.atom_transfer(self._s2)
        self._envelope = np.exp(-settings.b_factor / 4 * self._s2)
        self._band = self._s2 < (0.5 / settings.snr_pixel) ** 2
        gain = physics.gain_pattern(self._stream(0), settings.size, settings.gain_spread)
        self.gain = gain.astype(np.float32)

    def _stream(self, number: int) -> np.random.Generator:
        """An own sequence for each movie, so that movie 3 is the same in a small set and in a large one."""
        return np.random.default_rng([self.seed, number])

    def expose(self, number: int) -> Micrograph:
        """Return micrograph `number` (from 1)."""
        rng, settings = self._stream(number), self.settings
        low, high = settings.defocus
        # The golden ratio spreads any number of defoci evenly over the range, however many movies there are.
        u = low + (high - low) * ((number * 0.6180339887) % 1)
        shot = Micrograph(u, u - rng.uniform(50, 400), rng.uniform(0, 180))
        specimen, near = self._place(rng, shot)
        ctf = physics.contrast_transfer(self._size, settings.pixel, shot.defocus_u, shot.defocus_v, shot.angle)
        transfer = ctf * self._envelope
        signal = np.fft.rfft2(specimen) * self._transfer * transfer
        ice = np.fft.rfft2(rng.normal(size=(self._size,) * 2)) * transfer
        detector = self._balance(shot, signal, ice, near)
        self._record(rng, shot, signal, ice, detector)
        return shot

    def _place(self, rng: np.random.Generator, shot: Micrograph) -> tuple[Array, Array]:
        """Lay particles in random orientations; return their projection and the pixels that count as signal."""
        settings, size, reach = self.settings, self._size, self._reach
        specimen, near = np.zeros((size, size)), np.zeros((size, size), bool)
        yy, xx = np.mgrid[:size, :size]
        radius = 0.5 * settings.particle_diameter / settings.pixel
        for x, y in self._scatter(rng):
            rot, psi = rng.uniform(-180, 180, 2)
            tilt = float(np.rad2deg(np.arccos(rng.uniform(-1, 1))))
            left, top = MARGIN + round(x) - reach // 2, MARGIN + round(y) - reach // 2
            turned = self._positions @ physics.rotation(rot, tilt, psi).T
            window = np.s_[top : top + reach, left : left + reach]
            specimen[window] += physics.deposit(turned[:, :2] + (x - round(x), y - round(y)), self._weights, reach)
            near[window] |= (yy[window] - MARGIN - y) ** 2 + (xx[window] - MARGIN - x) ** 2 < radius**2
            shot.particles.append({"x": float(x), "y": float(y), "rot": float(rot), "tilt": tilt, "psi": float(psi)})
        return specimen, near

    def _scatter(self, rng: np.random.Generator) -> Array:
        """Return places (x, y) in pixels: at random, no two closer than the spacing, particles whole in the frame."""
        settings = self.settings
        edge = max(self._reach / 2 - MARGIN + 1, settings.particle_diameter / 2 / settings.pixel)
        apart = settings.spacing / settings.pixel
        placed = np.empty((0, 2))
        for place in rng.uniform(edge, settings.size - edge, (TRIES, 2)):
            if not len(placed) or ((placed - place) ** 2).sum(1).min() >= apart**2:
                placed = np.vstack([placed, place])
        return placed

    def _balance(self, shot: Micrograph, signal: Array, ice: Array, near: Array) -> float:
        """Scale `ice` in place and return the detector's noise per pixel, so that the stated SNR holds."""
        settings = self.settings
        exposures = (np.arange(settings.frames) + 0.5) * settings.dose_per_frame
        faded = signal * np.mean([physics.damage(self._s2, exposure) for exposure in exposures], axis=0)
        in_band = self._back(faded * self._band)[near].var() / settings.snr
        ice *= np.sqrt(settings.ice_share * in_band / self._back(ice * self._band).var())
        # White noise: the band (a disc) holds pi/4 of (pixel/snr_pixel)² of its variance.
        detector = float(np.sqrt((1 - settings.ice_share) * in_band * 4 / np.pi) * settings.snr_pixel / settings.pixel)
        shot.snr_raw_pixel = float(self._back(faded)[near].var() / (detector**2 + self._back(ice).var()))
        return detector

    def _record(self, rng: np.random.Generator, shot: Micrograph, signal: Array, ice: Array, detector: float) -> None:
        """Record the frames: the specimen drifts and fades, protein is dark, counts are raw (before the gain)."""
        settings = self.settings
        direction = rng.uniform(0, 2 * np.pi)
        way = settings.drift * (1 - np.exp(-np.arange(settings.frames) / 2.5))
        wobble = rng.normal(0, 0.1 * settings.pixel, (2, settings.frames))
        dx, dy = way * np.cos(direction) + wobble[0], way * np.sin(direction) + wobble[1]
        shot.drift_x, shot.drift_y = dx.tolist(), dy.tolist()
        frames = np.empty((settings.frames, settings.size, settings.size), np.float32)
        inner = np.s_[MARGIN : MARGIN + settings.size]
        for index in range(settings.frames):
            fade = physics.damage(self._s2, (index + 0.5) * settings.dose_per_frame)
            shift = np.exp(-2j * np.pi * (self._fx * dx[index] + self._fy * dy[index]))
            image = self._back(-(signal * fade + ice) * shift)[inner, inner] / settings.frames
            frames[index] = image + rng.normal(0, detector / np.sqrt(settings.frames), image.shape)
        frames *= COUNT_SPREAD / frames.std()
        shot.movie = np.clip(np.rint((frames + MEAN_COUNT) / self.gain), 0, 32_000).astype(np.int16)

    def _back(self, spectrum: Array) -> Array:
        return np.fft.irfft2(spectrum, (self._size,) * 2)
