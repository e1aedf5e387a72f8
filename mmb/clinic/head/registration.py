"""Rigid registration of two volumes of one head, and the measures of how well they lie on each other."""

import tempfile
from dataclasses import dataclass

import numpy as np
from nibabel.affines import apply_affine, from_matvec, voxel_sizes
from scipy.spatial.transform import Rotation
from scipy.stats import entropy

from mmb.clinic.head.grid import Grid, Image, in_field_of_view, isotropic_grid, moved, not_air, resample
from mmb.errors import StudyError
from mmb.extras import required

MINIMUM_PEAK = 2.0
"""Minimum ratio of the mutual information at the position found to that `PEAK_DISTANCE` mm away; below it, registration
has failed. On the phantom the ratio is 4 to 18 for sequences of one subject, and about 1 for those of two subjects."""
PEAK_DISTANCE = 12.0
MINIMUM_OVERLAP = 0.7  # minimum fraction of the smaller foreground that has to lie within the other one
REGISTRATION_SPACING = 2.0
"""Voxel size in mm for the registration; at 1 mm elastix would smooth eight times as many voxels, which takes long."""
BINS = 32
LPS = np.diag([-1.0, -1, 1, 1])  # transform between mm in RAS (NIfTI) and LPS (ITK), in either direction


@dataclass(frozen=True)
class Registration:
    """The rigid transform ``(4, 4)`` from mm (RAS) of the reference to those of the volume, and in words what it is.

    ``quality`` is the normalised mutual information over the voxels that are foreground in both.
    """

    transform: np.ndarray
    quality: float
    text: str


def register(fixed: Image, moving: Image, name: str) -> Registration:
    """Find the rigid transform with the largest mutual information between two volumes, and refuse a poor result.

    It uses elastix (Klein et al., IEEE TMI 29(1), 2010), coarse to fine, starting from the position in the headers or
    with the centres of mass aligned, whichever is better. The same volumes give the same transform. ``fixed`` has cubic
    voxels and orthogonal axes. ``name`` is the name of the pair for messages, e.g. ``T2 to T1c``. Raises ValueError if
    the volumes have too little in common, or hardly overlap; `MissingExtraError` if itk-elastix is not installed.
    """
    coarse = isotropic_grid(fixed, REGISTRATION_SPACING)
    still, shown = np.eye(4), resample(fixed, coarse)

    def compare(transform: np.ndarray) -> tuple[bool, float, float, float]:
        """Return whether the foregrounds overlap enough, the information, its peak, and the overlap."""
        second = moved(moving, transform)
        volumes, seen = (shown, resample(second, coarse)), in_field_of_view(Grid(second.shape, second.affine), coarse)
        masks = tuple(not_air(volume) & seen for volume in volumes)
        both, smaller = masks[0] & masks[1], min(mask.sum() for mask in masks)
        overlap = float(both.sum() / smaller) if smaller else 0.0
        information, step = _information(volumes, masks), round(PEAK_DISTANCE / REGISTRATION_SPACING)
        aside = [_information(volumes, masks, axis, sign * step) - 1 for axis in range(3) for sign in (-1, 1)]
        peak = (information - 1) / max(float(np.mean(aside)), 1e-6)
        return overlap >= MINIMUM_OVERLAP, information, peak, overlap

    # A small overlap may have a large mutual information by chance.
    start = max((still, _between_centres(fixed, moving)), key=lambda move: compare(move)[:2])
    own = isotropic_grid(moving, REGISTRATION_SPACING)
    failed = "the two could not be registered. Leave one out, register them yourself, or check that they show one head"
    try:
        found = _elastix(Image(shown, coarse.affine), moved(Image(resample(moving, own), own.affine), start))
    except RuntimeError as error:  # of elastix, which moved one volume out of the other
        raise StudyError(f"{name}: no place was found where they overlap; {failed}.") from error
    transform = start @ found
    _, quality, peak, overlap = compare(transform)
    middle = apply_affine(coarse.affine, (np.array(coarse.shape) - 1) / 2)
    angle = np.degrees(Rotation.from_matrix(transform[:3, :3]).magnitude())
    text = (
        f"registered, moved by {np.linalg.norm(apply_affine(transform, middle) - middle):.1f} mm and turned by "
        f"{angle:.1f} degrees; normalised mutual information {compare(still)[1]:.3f} before, {quality:.3f} "
        f"after, {peak:.1f} times the value {PEAK_DISTANCE:g} mm away; foregrounds overlap by {overlap:.0%}"
    )
    if peak < MINIMUM_PEAK or overlap < MINIMUM_OVERLAP:
        expected = f"Expected at least {MINIMUM_PEAK:g} times and {MINIMUM_OVERLAP:.0%}"
        raise StudyError(f"{name}: {text}. {expected}: {failed}.")
    return Registration(transform, quality, text)


def normalised_mutual_information(first: np.ndarray, second: np.ndarray) -> float:
    """Return ``(H(a) + H(b)) / H(a, b)`` of two arrays: 1 if they are independent, 2 if each determines the other.

    The arrays are the values of two images at the same voxels. Histograms have `BINS` bins from each array's 1st to its
    99th percentile (Studholme et al., Pattern Recognition 32(1), 1999).
    """
    ranked = []
    for values in (first, second):
        low, high = np.percentile(values, (1, 99))
        scaled = (values - low) / max(high - low, np.finfo(np.float32).tiny)
        ranked.append(np.clip(scaled * BINS, 0, BINS - 1).astype(np.int64))
    joint = np.bincount(ranked[0] * BINS + ranked[1], minlength=BINS * BINS).reshape(BINS, BINS)
    together = entropy(joint, axis=None)
    return float((entropy(joint.sum(axis=0)) + entropy(joint.sum(axis=1))) / together) if together > 0 else 1.0


def _information(
    volumes: tuple[np.ndarray, np.ndarray], masks: tuple[np.ndarray, np.ndarray], axis: int = 0, step: int = 0
) -> float:
    """Return the normalised mutual information over the common foreground, the second shifted along an axis."""
    ends = slice(max(step, 0), min(step, 0) or None), slice(max(-step, 0), min(-step, 0) or None)
    at = [(slice(None),) * axis + (end,) for end in ends]
    both = masks[0][at[0]] & masks[1][at[1]]
    return normalised_mutual_information(volumes[0][at[0]][both], volumes[1][at[1]][both]) if both.any() else 1.0


def _between_centres(fixed: Image, moving: Image) -> np.ndarray:
    """Return the shift from the centre of one volume's foreground to that of the other's."""
    centres = []
    for image in (fixed, moving):
        mask = not_air(np.asarray(image.dataobj, dtype=np.float32))
        voxels = np.argwhere(mask) if mask.any() else np.array([np.array(mask.shape) / 2])
        centres.append(apply_affine(image.affine, voxels.mean(axis=0)))
    return from_matvec(np.eye(3), centres[1] - centres[0])


def _elastix(fixed: Image, moving: Image) -> np.ndarray:
    """Return the rigid transform ``(4, 4)`` from mm (RAS) of one isotropic volume to those of another."""
    with required("clinic", "The images have to be registered"):
        import itk
        from itk import ParameterObject
    settings = ParameterObject.New()
    rigid = ParameterObject.GetDefaultParameterMap("rigid", 4)
    for key, values in {
        "AutomaticTransformInitialization": ["false"],
        "FixedImagePyramid": ["FixedGenericImagePyramid"],  # takes half the time of the default
        "MovingImagePyramid": ["MovingGenericImagePyramid"],
        "MaximumNumberOfIterations": ["256"],
        "NumberOfSpatialSamples": ["2048", "2048", "2048", "10000"],
        "NewSamplesEveryIteration": ["true"],
        "ImageSampler": ["RandomCoordinate"],
        "RandomSeed": ["2010"],
        "WriteResultImage": ["false"],
    }.items():
        rigid[key] = values
    settings.AddParameterMap(rigid)
    threads = itk.MultiThreaderBase
    most, usual = threads.GetGlobalMaximumNumberOfThreads(), threads.GetGlobalDefaultNumberOfThreads()
    with tempfile.TemporaryDirectory() as folder:
        try:  # one thread, so that sums are always in the same order
            _, result = itk.elastix_registration_method(
                _to_itk(fixed), _to_itk(moving), parameter_object=settings, number_of_threads=1, output_directory=folder
            )
        finally:
            threads.SetGlobalMaximumNumberOfThreads(most)
            threads.SetGlobalDefaultNumberOfThreads(usual)
    parameters = result.GetParameterMap(0)
    x, y, z, *shift = map(float, parameters["TransformParameters"])
    turn = Rotation.from_euler("ZXY", (z, x, y)).as_matrix()  # ITK's Euler3DTransform
    centre = np.array(parameters["CenterOfRotationPoint"], float)
    transform = from_matvec(turn, centre + shift - turn @ centre)
    return LPS @ transform @ LPS


def _to_itk(image: Image):
    import itk

    volume = itk.image_from_array(np.ascontiguousarray(np.asarray(image.dataobj, dtype=np.float32).T))
    sizes, affine = voxel_sizes(image.affine), LPS @ image.affine
    volume.SetSpacing(sizes.tolist())
    volume.SetOrigin(affine[:3, 3].tolist())
    volume.SetDirection(itk.matrix_from_array(np.ascontiguousarray(affine[:3, :3] / sizes)))
    return volume
