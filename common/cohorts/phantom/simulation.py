"""Simulation of one synthetic glioma patient: anatomy, tumour and scans, from random numbers and signal equations.

Anatomy is drawn in millimetres from distance functions and smooth noise. Every tissue has the signal given by the
sequence's equation; a scanner's gain, a bias field and Rician noise are added. Each region is visible in the sequences
in which radiologists see it: oedema in FLAIR and T2, enhancing tumour in T1c, the necrotic core in T1c and T2. Vessels
and choroid plexus (bright in T1c), white-matter hyperintensities (bright in FLAIR) and CSF (bright in T2) have to be
distinguished from tumour.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from common.cohorts.brats import PHANTOM
from common.modalities import GLIOMA

LABELS = PHANTOM.labels.values
SHAPE = (80, 80, 52)
SPACING = 3.0


class Tissue(NamedTuple):
    """The properties of a tissue that determine its signal.

    Attributes:
        t1: longitudinal relaxation time in ms.
        t2: transverse relaxation time in ms.
        density: proton density relative to CSF.
        gadolinium: contrast agent in mmol/l after injection.
    """

    t1: float
    t2: float
    density: float
    gadolinium: float = 0.0


TISSUES = {
    "csf": Tissue(2569, 329, 1.0),
    "gm": Tissue(833, 83, 0.86, 0.03),
    "wm": Tissue(500, 70, 0.77, 0.01),
    "vessel": Tissue(1400, 60, 0.75, 1.5),
    "lesion": Tissue(800, 120, 0.83, 0.01),
    "ED": Tissue(900, 135, 0.87, 0.01),
    "NCR": Tissue(1600, 210, 0.93, 0.02),
    "ET": Tissue(970, 125, 0.87, 0.7),
}
"""CSF, grey and white matter: BrainWeb's tissue parameters for 1.5 T (brainweb.bic.mni.mcgill.ca). The others were
chosen to look as in BraTS; the short T2 of ``vessel`` models its flow void; ``lesion`` is a hyperintensity of WM."""

RELAXIVITY = 0.0045  # relaxivity of gadolinium, per ms and mmol/l; about that of common agents at 1.5 T


def simulate(
    seed: int, shape: tuple[int, int, int] = SHAPE, spacing: float = SPACING, *, enhancing: bool = True
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Draw one synthetic patient; the same arguments give the same voxels.

    Returns images by canonical modality name, int16, 0 exactly where there is no brain; and the label map, uint8, in
    the values of ``PHANTOM.labels``.

    Voxels are cubes of ``spacing`` mm on a grid of ``shape``, whose axes run to the patient's left, posterior and
    superior as in BraTS (LPS). A tumour that is not ``enhancing`` has no ET, as in many low-grade gliomas.
    """
    head = _Head(np.random.default_rng(seed), shape, spacing)
    radius = head.rng.uniform(17, 29)
    centre = _tumour_centre(head.rng, radius)
    inner = _standard(head, centre, radius)
    tissues = _anatomy(head, inner)
    cost = 5 * tissues["gm"] + 12 * tissues["csf"]
    # The falx, which lies in the middle of the standard head, bounds the tumour.
    allowed = (inner[0] * np.sign(centre[0]) > 1) & (head.depth > 2)
    tumour, label = _tumour(head, allowed, cost, centre, radius, enhancing)
    healthy = 1 - sum(tumour.values())
    tissues = {name: part * healthy for name, part in tissues.items()} | tumour
    images = {name: head.volume(image, np.int16) for name, image in _scans(head, tissues).items()}
    return images, head.volume(label, np.uint8)


class _Head:
    """The brain of one patient as a list of N voxels, with the operations that draw on it.

    Attributes:
        points: ``(3, N)`` mm to the right, to the front and upwards from the middle of the head.
        depth: ``(N,)`` mm below the surface of the brain.
    """

    def __init__(self, rng: np.random.Generator, shape: tuple[int, int, int], spacing: float) -> None:
        self.rng, self.shape, self.spacing = rng, shape, spacing
        points = self._pose()
        depth = -_outline(points)
        self.brain = depth > 0
        self.points, self.depth = points[:, self.brain], depth[self.brain]

    def _pose(self) -> np.ndarray:
        """Return coordinates ``(3, X*Y*Z)`` in mm of all voxels in a randomly turned, shifted and scaled head."""
        middle = (np.array(self.shape)[:, None] - 1) / 2
        points = (np.indices(self.shape).reshape(3, -1) - middle) * self.spacing * [[-1], [-1], [1]]
        turn = np.eye(3)
        for first, second in ((0, 1), (0, 2), (1, 2)):
            angle, plane = np.deg2rad(self.rng.uniform(-7, 7)), np.eye(3)
            plane[np.ix_([first, second], [first, second])] = [
                [np.cos(angle), -np.sin(angle)],
                [np.sin(angle), np.cos(angle)],
            ]
            turn = plane @ turn
        size = self.rng.uniform(0.94, 1.05) * self.rng.uniform(0.97, 1.03, (3, 1))
        return turn @ (points - self.rng.uniform(-3, 3, (3, 1))) / size

    def _field(self, length: float) -> np.ndarray:
        """Return white noise on knots 1.4 lengths apart, smoothed with a Gaussian, in the shape of the image."""
        field = self.rng.standard_normal([int(n * self.spacing / (1.4 * length)) + 7 for n in self.shape])
        for n in reversed(self.shape):
            away = np.arange(n) * self.spacing / length - 1.4 * (np.arange(field.shape[-1])[:, None] - 3)
            weights = np.exp(-0.5 * away**2)
            field = np.moveaxis(field @ (weights / np.linalg.norm(weights, axis=0)), -1, 0)
        return field

    def noise(self, length: float) -> np.ndarray:
        """Return a Gaussian random field ``(N,)`` of unit variance, smooth over ``length`` mm."""
        return self._field(length).ravel()[self.brain]

    def sheets(self, length: float) -> np.ndarray:
        """Return the distance ``(N,)`` in mm to winding sheets (zeros of a field), about ``4.4 * length`` apart."""
        field = self._field(length)
        slope = np.linalg.norm(np.gradient(field, self.spacing), axis=0)
        return (np.abs(field) / np.maximum(slope, 0.2 / length)).ravel()[self.brain]

    def inside(self, distance: np.ndarray) -> np.ndarray:
        """Return the fraction, 0 to 1, of each voxel inside a surface ``distance`` mm away (negative inside)."""
        return np.clip(0.5 - distance / self.spacing, 0, 1)

    def volume(self, values: np.ndarray, dtype: type) -> np.ndarray:
        """Put values ``(N,)`` into an image that is 0 outside the brain."""
        voxels: np.ndarray = np.zeros(self.brain.shape, dtype)
        voxels[self.brain] = values
        return voxels.reshape(self.shape)


def _ellipsoid(points: np.ndarray, centre: ArrayLike, axes: ArrayLike) -> np.ndarray:
    """Return the approximate distance in mm to an ellipsoid, negative inside."""
    axes = np.array(axes)[:, None]
    offset = (points - np.array(centre)[:, None] + 1e-6) / axes  # never exactly at the centre, where the slope is 0
    size = np.linalg.norm(offset, axis=0)
    return size * (size - 1) / np.linalg.norm(offset / axes, axis=0)


def _tube(points: np.ndarray, path: list[tuple[float, ...]], radius: float) -> np.ndarray:
    """Return the distance in mm to a tube around a polyline, negative inside."""
    nearest = np.full(points.shape[1], np.inf)
    for start, end in zip(np.array(path[:-1], float), np.array(path[1:], float), strict=True):
        offset, way = points - start[:, None], end - start
        along = np.clip(way @ offset / (way @ way), 0, 1)
        nearest = np.minimum(nearest, np.linalg.norm(offset - way[:, None] * along, axis=0))
    return nearest - radius


def _merge(first: np.ndarray, second: np.ndarray, blend: float = 8) -> np.ndarray:
    """Return the union of two shapes given by distances, rounded over ``blend`` mm where they meet."""
    near = np.maximum(blend - np.abs(first - second), 0) / blend
    return np.minimum(first, second) - near**2 * blend / 4


def _mirrored(points: np.ndarray) -> np.ndarray:
    """Fold the left half of the head onto the right."""
    return np.concatenate([np.abs(points[:1]), points[1:]])


def _stem(points: np.ndarray) -> np.ndarray:
    """Return the distance in mm to the brain stem, negative inside."""
    return _tube(points, [(0, -14, 0), (0, -24, -66)], 12)


def _outline(points: np.ndarray) -> np.ndarray:
    """Return the distance in mm to the surface of the brain after skull stripping, negative inside."""
    half, above_base = _mirrored(points), points[2] + 18 - 0.1 * points[1]
    cerebrum = -_merge(-_ellipsoid(points, (0, 0, 12), (67, 85, 58)), above_base, 16)
    temporal = _ellipsoid(half, (40, 6, -20), (25, 42, 24))
    cerebellum = _ellipsoid(half, (20, -46, -32), (32, 30, 24))
    return _merge(_merge(cerebrum, temporal), _merge(cerebellum, _stem(points)))


def _tumour_centre(rng: np.random.Generator, radius: float) -> np.ndarray:
    """Draw a position in one hemisphere that is deep enough for a tumour of the given radius in mm."""
    side = rng.choice([-1, 1])
    while True:
        centre = np.array([side * rng.uniform(15, 50), rng.uniform(-60, 55), rng.uniform(-12, 50)])
        if abs(centre[0]) > 0.8 * radius and _outline(centre[:, None])[0] < -0.75 * radius:
            return centre


def _standard(head: _Head, centre: np.ndarray, radius: float) -> np.ndarray:
    """Return the voxels' positions ``(3, N)`` in the standard head, without the patient's shape and the mass effect."""
    wobble = np.stack([3 * head.noise(25) for _ in range(3)])
    offset = head.points - centre[:, None]
    distance = np.linalg.norm(offset, axis=0)
    push = head.rng.uniform(0.15, 0.35) * radius * np.exp(-((distance / (2 * radius)) ** 2))
    return head.points + wobble - push * offset / np.maximum(distance, 1)


def _anatomy(head: _Head, inner: np.ndarray) -> dict[str, np.ndarray]:
    """Return the fractions ``(N,)`` of the healthy tissues in each voxel; they sum to 1."""
    rng, half = head.rng, _mirrored(inner)
    cortex = rng.uniform(3.8, 4.6)
    folds, pial = _cortical_surface(head, inner)
    csf = np.minimum(pial - rng.uniform(-0.9, 0.1), _ventricles(inner, rng.uniform(4, 7)))
    nuclei = [
        _ellipsoid(half, (13, -10, 2), (8, 14, 8)),  # thalamus
        _ellipsoid(half, (26, 8, 1), (6, 18, 10)),  # lentiform nucleus
        _ellipsoid(half, (15, 20, 6), (5, 9, 9)),  # head of the caudate
    ]
    sinus = np.hypot(inner[0], head.depth - 2) - 3.2 + 10 * (inner[2] < 0)
    veins = np.hypot(folds, head.sheets(7)) - 0.8
    choroid = _ellipsoid(half, (21, -33, 3), (3.5, 5, 3.5))
    spots = rng.choice(inner.shape[1], rng.integers(8, 32))
    lesions = [_ellipsoid(inner, inner[:, spot], rng.uniform(2, 5, 3)) for spot in spots]
    covers = {  # each one hides the next
        "vessel": head.inside(np.min([sinus, veins, choroid], axis=0)),
        "csf": head.inside(csf),
        "gm": head.inside(np.min([pial - cortex, *nuclei], axis=0)) * (_stem(inner) > 0),
        "lesion": head.inside(np.min(lesions, axis=0)),
        "wm": np.ones_like(csf),
    }
    rest, tissues = 1.0, {}
    for name, cover in covers.items():
        tissues[name] = rest * cover
        rest = rest - tissues[name]
    return tissues


def _cortical_surface(head: _Head, inner: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return distances ``(N,)`` in mm to the nearest sulcus or fissure, and to the surface of the cortex with folds."""
    x, y, z = np.abs(inner[0]), inner[1], inner[2]
    # The sheets end at a certain depth: below it, the distance to that end is added.
    sulci = np.hypot(head.sheets(3.8), np.maximum(0, head.depth - head.rng.uniform(15, 21)))
    callosum = _ellipsoid(inner[1:], (-4, -12), (44, 35))
    fissure = np.hypot(x, np.maximum(0, -callosum) + np.maximum(0, -14 - z))
    slope = z + 4 - 0.3 * y + 3 * head.noise(10)
    sylvian = np.hypot(slope, np.maximum(0, 32 - x) + np.maximum(0, np.abs(y - 4) - 30))
    folds = np.min([sulci, fissure, sylvian], axis=0)
    pial = np.minimum(head.depth - head.rng.uniform(0.5, 2), folds)
    return folds, np.maximum(pial, -_stem(inner))  # no folds in the brain stem


def _ventricles(inner: np.ndarray, size: float) -> np.ndarray:
    """Return the distance ``(N,)`` in mm to the ventricles; ``size`` is the radius of the lateral ones."""
    half = _mirrored(inner)
    parts = [
        _tube(half, [(7, 32, 4), (9, 14, 13), (13, -16, 13), (23, -36, 2)], size),  # lateral, front to back
        _tube(half, [(23, -36, 2), (30, -16, -16)], 0.5 * size),  # temporal horn
        _ellipsoid(inner, (0, -4, -2), (0.5 * size, 15, 9)),  # third
        _ellipsoid(inner, (0, -34, -30), (size, 5, 9)),  # fourth
    ]
    return np.min(parts, axis=0)


def _tumour(
    head: _Head, allowed: np.ndarray, cost: np.ndarray, centre: np.ndarray, radius: float, enhancing: bool
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return the fractions ``(N,)`` of the tumour's tissues in each voxel, and the label map ``(N,)``.

    Each part comprises the allowed voxels nearest to the centre, up to a random volume. The distance is elliptic, in
    mm, with noise; for oedema, which spreads in white matter and spares cortex and CSF, ``cost`` is added to it.
    """
    rng = head.rng

    def nearest(field: np.ndarray, sphere: float) -> np.ndarray:
        voxels = 4 / 3 * np.pi * (sphere / head.spacing) ** 3
        return allowed * head.inside(field - np.sort(field[allowed])[int(voxels)])

    directions, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    offset = directions @ (head.points - centre[:, None]) / rng.uniform(0.8, 1.25, (3, 1))
    near = np.linalg.norm(offset, axis=0) + 0.18 * radius * head.noise(8)
    core_radius = radius * rng.uniform(0.62, 0.82)
    rim = min(rng.uniform(5, 9), 0.5 * core_radius)
    patchy = rng.uniform(0.1, 0.5)

    core = nearest(near, core_radius)
    whole = np.maximum(nearest(near + 0.25 * radius * head.noise(11) + cost, radius), core)
    necrosis = np.minimum(nearest(near + patchy * rim * head.noise(8), core_radius - rim), core) if enhancing else core
    values = LABELS
    label = np.select([necrosis > 0.5, core > 0.5, whole > 0.5], [values[name] for name in ("NCR", "ET", "ED")])
    return {"ED": whole - core, "NCR": necrosis, "ET": core - necrosis}, label


def _scans(head: _Head, tissues: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return images ``(N,)`` of the brain in a scanner's arbitrary units, at least 1."""
    rng = head.rng
    signals = _signals(rng, {name: TISSUES[name] for name in tissues})
    ill = sum(tissues[name] for name in LABELS)
    images = {}
    for modality in GLIOMA:
        image = sum(part * signals[modality][name] for name, part in tissues.items())
        level = np.mean(image)
        image *= 1 + (0.03 + 0.05 * ill) * head.noise(5)  # tissue is not uniform, and tumour even less so
        image *= np.exp(rng.uniform(0.05, 0.15) * head.noise(60))
        real, imaginary = rng.uniform(0.015, 0.04) * level * rng.standard_normal((2, image.size))
        gain = np.exp(rng.uniform(np.log(200), np.log(2000))) / level
        images[modality] = np.maximum(1, np.rint(gain * np.hypot(image + real, imaginary)))
    return images


def _signals(rng: np.random.Generator, tissues: dict[str, Tissue]) -> dict[str, dict[str, float]]:
    """Return the signal of each tissue in each sequence, for a random protocol and random relaxation times."""
    signals: dict[str, dict[str, float]] = {modality: {} for modality in GLIOMA}
    t1_protocol, t1c_protocol = ((rng.uniform(450, 650), rng.uniform(9, 15)) for _ in range(2))
    t2_protocol = rng.uniform(4000, 6000), rng.uniform(80, 110)
    repetition, echo = rng.uniform(8000, 10000), rng.uniform(100, 130)
    csf = tissues["csf"].t1
    null = -csf * np.log((1 + np.exp(-repetition / csf)) / 2)
    inversion = null * rng.uniform(0.95, 1.05)
    for name, (t1, t2, density, gadolinium) in tissues.items():
        t1, t2 = rng.uniform(0.93, 1.07, 2) * (t1, t2)
        enhanced = 1 / (1 / t1 + RELAXIVITY * gadolinium)
        signals["t1"][name] = density * _spin_echo(t1, t2, *t1_protocol)
        signals["t1c"][name] = density * _spin_echo(enhanced, t2, *t1c_protocol)
        signals["t2"][name] = density * _spin_echo(t1, t2, *t2_protocol)
        signals["flair"][name] = density * _inversion_recovery(t1, t2, repetition, echo, inversion)
    return signals


def _spin_echo(t1: float, t2: float, repetition: float, echo: float) -> float:
    return (1 - np.exp(-repetition / t1)) * np.exp(-echo / t2)


def _inversion_recovery(t1: float, t2: float, repetition: float, echo: float, inversion: float) -> float:
    return abs(1 - 2 * np.exp(-inversion / t1) + np.exp(-repetition / t1)) * np.exp(-echo / t2)
