"""Are class averages images of the true protein? Importable by every test that sees class averages.

`judge(classes, truth_map)` compares each average with projections of the true density in all directions, turned and shifted,
and in exactly the same way with projections of densities that have nothing to do with it. An average counts as an image of the
protein only when the truth fits it well AND clearly better than the best of the unrelated ones: any two compact blobs correlate,
so that a correlation alone says nothing. The unrelated densities are made here: protein-like chains folded at random inside an
ellipsoid with the extent of the specimen, so that they have its size and its overall shape, but not its structure.

Needs numpy and mrcfile. Images are compared between 20 Å and the particle's size, inside a circle around its centre.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

RESOLUTION = 20.0  # Å: what a class average of some hundred particles shows
HIGHPASS = 110.0  # Å: without the overall blob, which all compact densities share
DIRECTIONS = 400  # about 10° apart
TURNS = 72  # 5°
UNRELATED_SEEDS = (101, 102, 103, 104)
ENOUGH, MARGIN = 0.80, 0.05


@dataclass(frozen=True)
class Verdict:
    """How well one class average fits the truth and the best unrelated density (correlations), and how many particles it has."""

    number: int
    share: float
    truth: float
    unrelated: float

    @property
    def margin(self) -> float:
        """How much better the truth fits than the best of the unrelated densities."""
        return self.truth - self.unrelated

    @property
    def right(self) -> bool:
        """Whether the average is an image of the true protein."""
        return self.truth >= ENOUGH and self.margin >= MARGIN


def judge(
    classes: Path, truth_map: Path, shares: list[float] | None = None, *, diameter: float = 130.0
) -> list[Verdict]:
    """Return a verdict for each average of the stack `classes`; empty averages fit nothing."""
    with mrcfile.open(classes) as file:
        images, pixel = np.atleast_3d(file.data).astype(float), float(file.voxel_size.x)
    with mrcfile.open(truth_map) as file:
        volume, voxel = file.data.astype(float), float(file.voxel_size.x)
    points, weights = cloud(volume, voxel)
    candidates = Candidates(images, pixel, diameter)
    truth = candidates.best(points, weights)
    unrelated = np.max([candidates.best(*made_up(points, weights, seed)) for seed in UNRELATED_SEEDS], axis=0)
    share = shares or [float("nan")] * len(images)
    return [Verdict(i + 1, share[i], float(truth[i]), float(unrelated[i])) for i in range(len(images))]


def cloud(volume: Array, voxel: float) -> tuple[Array, Array]:
    """Return the density as points (Å from the centre, x y z) and weights: quick to project in any direction."""
    centre = len(volume) // 2
    z, y, x = np.nonzero(np.abs(volume) > 0.02 * volume.max())
    points = (np.stack([x, y, z], 1) - centre) * voxel
    return points, volume[z, y, x]


def made_up(points: Array, weights: Array, seed: int) -> tuple[Array, Array]:
    """Return an unrelated density: random chains of steps of 3.8 Å inside an ellipsoid with the extent of the true one."""
    rng = np.random.default_rng(seed)
    centre = (points * weights[:, None]).sum(0) / weights.sum()
    axes = np.sqrt(5 * (((points - centre) ** 2) * np.abs(weights)[:, None]).sum(0) / np.abs(weights).sum())
    length, chains, found = 90, 14, []
    for _ in range(chains):
        while True:
            here = rng.uniform(-1, 1, 3)
            if (here**2).sum() < 0.8:
                break
        here, heading = here * axes, rng.normal(size=3)
        for _ in range(length):
            heading = 0.75 * heading / np.linalg.norm(heading) + 0.45 * rng.normal(size=3)
            step = here + 3.8 * heading / np.linalg.norm(heading)
            if ((step / axes) ** 2).sum() > 1:
                heading = -here / np.linalg.norm(here) + 0.3 * rng.normal(size=3)
                step = here + 3.8 * heading / np.linalg.norm(heading)
            here = step
            found.append(here)
    made = np.array(found)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    return (made - made.mean(0)) @ turn.T, np.ones(len(made))


class Candidates:
    """The class averages, filtered, in every in-plane turn, ready to be compared with one projection after another."""

    def __init__(self, images: Array, pixel: float, diameter: float) -> None:
        size = images.shape[-1]
        self.count, self.size, self.pixel = len(images), size, pixel
        axis = (np.arange(size) - size // 2) * pixel
        yy, xx = np.meshgrid(axis, axis, indexing="ij")
        radius = np.hypot(xx, yy)
        self.mask = np.clip((diameter / 2 + 8 - radius) / 8, 0, 1)
        s2 = np.fft.fftfreq(size, pixel)[:, None] ** 2 + np.fft.rfftfreq(size, pixel)[None] ** 2
        self.band = np.exp(-s2 * RESOLUTION**2 / 2) * (1 - np.exp(-s2 * HIGHPASS**2 / 2))
        turned = [
            self._unit(self._turn(self._filter(image), angle))
            for image in images
            for angle in np.arange(TURNS) * 2 * np.pi / TURNS
        ]
        self.spectra = np.fft.rfft2(np.array(turned))

    def best(self, points: Array, weights: Array) -> Array:
        """Return for each average the best correlation with any projection of the density, turned and shifted."""
        found = np.full(self.count, -1.0)
        for direction in spread(DIRECTIONS):
            image = self._unit(self._filter(self._project(points, weights, direction)))
            product = np.conj(np.fft.rfft2(image))[None] * self.spectra
            fit = np.fft.irfft2(product, (self.size,) * 2).max(axis=(1, 2))
            found = np.maximum(found, fit.reshape(self.count, TURNS).max(axis=1))
        return found

    def _project(self, points: Array, weights: Array, direction: Array) -> Array:
        """Project along `direction`, each point spread linearly over four pixels."""
        side = np.cross(direction, [1.0, 0, 0] if abs(direction[0]) < 0.9 else [0, 1.0, 0])
        side /= np.linalg.norm(side)
        flat = np.stack([points @ side, points @ np.cross(direction, side)], 1) / self.pixel + self.size // 2
        low = np.floor(flat).astype(int)
        part = flat - low
        inside = ((low >= 0) & (low < self.size - 1)).all(1)
        low, part, weights = low[inside], part[inside], weights[inside]
        image = np.zeros(self.size**2)
        for dx, dy in ((0, 0), (0, 1), (1, 0), (1, 1)):
            share = np.abs(1 - dx - part[:, 0]) * np.abs(1 - dy - part[:, 1])
            index = (low[:, 1] + dy) * self.size + low[:, 0] + dx
            image += np.bincount(index, weights * share, self.size**2)
        return image.reshape(self.size, self.size)

    def _filter(self, image: Array) -> Array:
        return np.fft.irfft2(np.fft.rfft2(image) * self.band, image.shape)

    def _unit(self, image: Array) -> Array:
        inside = self.mask > 0.5
        flat = (image - image[inside].mean()) * self.mask
        length = np.linalg.norm(flat)
        return flat / length if length > 0 else flat

    def _turn(self, image: Array, angle: float) -> Array:
        """Turn around the centre pixel with linear interpolation."""
        axis = np.arange(self.size) - self.size // 2
        yy, xx = np.meshgrid(axis, axis, indexing="ij")
        x = np.cos(angle) * xx + np.sin(angle) * yy + self.size // 2
        y = -np.sin(angle) * xx + np.cos(angle) * yy + self.size // 2
        x, y = np.clip(x, 0, self.size - 1.001), np.clip(y, 0, self.size - 1.001)
        i, j = y.astype(int), x.astype(int)
        u, v = y - i, x - j
        return np.asarray(
            image[i, j] * (1 - u) * (1 - v)
            + image[i + 1, j] * u * (1 - v)
            + image[i, j + 1] * (1 - u) * v
            + image[i + 1, j + 1] * u * v
        )


def spread(count: int) -> Array:
    """Return directions spread evenly over a hemisphere (the other one gives mirror images, see below).

    A projection from behind is the mirror image of one from the front and is no rotation of it, so that the whole sphere is
    covered: `count` points of a Fibonacci spiral.
    """
    index = np.arange(count) + 0.5
    z = 1 - 2 * index / count
    angle = np.pi * (1 + 5**0.5) * index
    return np.stack([np.sqrt(1 - z**2) * np.cos(angle), np.sqrt(1 - z**2) * np.sin(angle), z], 1)
