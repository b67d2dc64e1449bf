"""How a protein becomes an image: rotation, projection, solvent, contrast transfer, radiation damage.

Arrays are indexed [y, x] or [z, y, x]; positions are (x, y, z) in Å or pixels; Fourier arrays have the layout of
`rfft`.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

VOLTAGE_KV = 300.0
CS_MM = 2.7
AMPLITUDE_CONTRAST = 0.1


def rotation(rot: float, tilt: float, psi: float) -> Array:
    """Return the matrix A of RELION's ZYZ angles in degrees: r_image = A r_map, projected along z."""
    a, b, c = np.deg2rad([rot, tilt, psi])
    ca, sa, cb, sb, cc, sc = np.cos(a), np.sin(a), np.cos(b), np.sin(b), np.cos(c), np.sin(c)
    return np.array(
        [
            [cc * cb * ca - sc * sa, cc * cb * sa + sc * ca, -cc * sb],
            [-sc * cb * ca - cc * sa, -sc * cb * sa + cc * ca, sc * sb],
            [sb * ca, sb * sa, cb],
        ]
    )


def deposit(positions: Array, weights: Array, size: int) -> Array:
    """Spread weights linearly over a grid; positions (N, 2 or 3) are in pixels from its centre size // 2."""
    shifted = positions + size // 2
    low = np.floor(shifted).astype(int)
    part = shifted - low
    axes = positions.shape[1]
    grid = np.zeros(size**axes)
    for corner in product((0, 1), repeat=axes):
        share = np.prod(np.where(corner, part, 1 - part), axis=1)
        index = np.zeros(len(low), int)
        for axis in reversed(range(axes)):  # x runs fastest
            index = index * size + low[:, axis] + corner[axis]
        grid += np.bincount(index, weights=weights * share, minlength=size**axes)[: size**axes]
    return grid.reshape((size,) * axes)


def atom_transfer(s2: Array) -> Array:
    """Return what turns point atoms into density at squared frequencies s2 (1/Å²).

    An atom is a Gaussian of sigma 0.9 Å minus the solvent it displaces, a wider Gaussian of weight 0.6: proteins in ice
    are seen against water, and lose most of their contrast at low resolution to it.
    """

    def gaussian(sigma: float) -> Array:
        return np.exp(-2 * np.pi**2 * sigma**2 * s2)

    return gaussian(0.9) * (1 - 0.6 * gaussian(2.5))


def density(positions: Array, weights: Array, size: int, pixel: float) -> Array:
    """Return the map of the atoms on a cube of voxels of `pixel` Å, made twice as fine and cropped in Fourier space."""
    fine, step = 2 * size, pixel / 2
    full, half = np.fft.fftfreq(fine, step), np.fft.rfftfreq(fine, step)
    s2 = full[:, None, None] ** 2 + full[None, :, None] ** 2 + half**2
    spectrum = np.fft.rfftn(deposit(positions / step, weights, fine)) * atom_transfer(s2)
    kept = np.r_[0 : size // 2, fine - size // 2 : fine]
    cropped = spectrum[kept][:, kept][:, :, : size // 2 + 1]
    return np.fft.irfftn(cropped, (size,) * 3, axes=(0, 1, 2)) / 8


def wavelength(kilovolts: float) -> float:
    """Return the relativistic wavelength of electrons in Å."""
    volts = kilovolts * 1e3
    return 12.2643247 / float(np.sqrt(volts * (1 + volts * 0.978466e-6)))


def contrast_transfer(size: int, pixel: float, defocus_u: float, defocus_v: float, angle: float) -> Array:
    """Return the contrast transfer on an rfft grid, in RELION's sign; defoci in Å, angle in degrees."""
    fy, fx = np.fft.fftfreq(size, pixel)[:, None], np.fft.rfftfreq(size, pixel)[None]
    s2 = fx**2 + fy**2
    direction = np.arctan2(fy, fx) - np.deg2rad(angle)
    defocus = (defocus_u + defocus_v) / 2 + (defocus_u - defocus_v) / 2 * np.cos(2 * direction)
    length = wavelength(VOLTAGE_KV)
    phase = np.pi * length * defocus * s2 - np.pi / 2 * CS_MM * 1e7 * length**3 * s2**2
    return np.asarray(np.sin(phase + np.arcsin(AMPLITUDE_CONTRAST)))


def damage(s2: Array, exposure: float) -> Array:
    """Return what is left of the signal after `exposure` e/Å² at 300 kV (Grant & Grigorieff, eLife 2015, 4:e06980)."""
    frequency = np.sqrt(np.maximum(s2, 1e-6))
    left: Array = np.exp(-exposure / (2 * (0.245 * frequency**-1.665 + 2.81)))
    return left


def gain_pattern(rng: np.random.Generator, size: int, strength: float) -> Array:
    """Return a gain reference with mean 1 and relative spread `strength`: by pixels, columns and four tiles.

    It follows RELION's convention: a corrected frame is the raw frame MULTIPLIED by the gain reference.
    """
    pattern = rng.normal(0, 1, (size, size)) + 0.6 * rng.normal(0, 1, (1, size))
    tiles = rng.normal(0, 0.8, (2, 2))
    pattern += np.kron(tiles, np.ones((size - size // 2, size - size // 2)))[:size, :size]
    return np.asarray(1 + strength * (pattern - pattern.mean()) / pattern.std())
