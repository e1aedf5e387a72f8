"""Figures show the given numbers, and no text is cut off or covered."""

from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO

import numpy as np
import pandas as pd
import pytest
from evaluation.examples import evaluation_of, random_evaluation
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.contour import ContourSet
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from common.evaluation.metrics.results import LATENT_COLUMNS, Evaluation
from common.evaluation.report import figures, style
from common.evaluation.report.slices import Slice, slice_panels
from common.modalities import subset_name, subsets, tumour_labels

BRATS = ("t1", "t1c", "t2", "flair")
GLIOMA = ("WT", "TC", "ET")
LONG = ("M3AE", "mmFormer", "RFNet", "U-HVED (2019), trained again for this", "PASSION", "MedMAP", "GSS", "nnU-Net")


NAME = r"$\alpha$ & $5 \frac{$"
"""Would be an invalid formula."""


def measured(
    modalities: Sequence[str] = BRATS, regions: Sequence[str] = GLIOMA, cases: int = 8, name: str = "M3AE"
) -> Evaluation:
    """Return random results of all subsets, with everything that can be drawn."""
    names = [f"case{number}" for number in range(cases)]
    return random_evaluation(name, modalities, regions, names, probabilities=True, seed=len(name))


def with_gaps(evaluation: Evaluation, share: float) -> Evaluation:
    """Return an evaluation with this fraction of its values removed."""
    results, rng = evaluation.results, np.random.default_rng(0)
    kept = results["value"].where(rng.random(len(results)) >= share)
    return replace(evaluation, results=results.assign(value=kept))


TOY = {"t1": [0.2, 0.4], "t2": [0.5, 0.9], "t1+t2": [0.8, 1.0]}


def toy(values: dict[str, list[float]] = TOY, name: str = "toy") -> Evaluation:
    """Return an evaluation of modalities t1 and t2 and the region WT: subset -> Dice of each case."""
    return evaluation_of({(subset, "WT"): row for subset, row in values.items()}, name, regions=("WT",))


def made_slice(title: str = "worst case: a", subset: str = "t1c+flair", modalities: Sequence[str] = BRATS):
    """A bright square of 40 x 50 in a dark field of 60 x 60; the label is on the patient's left (low x in RAS)."""
    images = np.zeros((len(modalities), 60, 60), np.float16)
    images[:, 10:50, 5:55] = np.random.default_rng(0).random((40, 50)) + 1
    images[[i for i, name in enumerate(modalities) if name not in subset.split("+")]] = np.nan
    reference = np.zeros((60, 60), np.uint8)
    reference[14:26, 20:40], reference[16:24, 24:36], reference[18:22, 26:32] = 2, 4, 1
    return Slice(title, subset, images, reference, np.roll(reference, 6, 1), (0.9, 0.75, np.nan))


LABELS = tumour_labels(ED=2, NCR=1, ET=4)


def all_figures():
    """Return figures of each function: few and many modalities, regions, methods and cases, gaps and strange names."""
    full, gaps = measured(), with_gaps(measured(cases=2), 0.5)
    iseg, heart = measured(("t1", "t2"), ("WM", "GM", "CSF")), measured(BRATS[1:], (NAME,))
    for draw in (figures.heatmap, figures.boxplots):
        for tag, evaluation in {"full": full, "gaps": gaps, "iseg": iseg, "heart": heart}.items():
            yield f"{draw.__name__} {tag}", lambda draw=draw, evaluation=evaluation: draw(evaluation)
    yield "embedding", lambda: figures.embedding(full.latents)
    eight = [measured(name=name, cases=3) for name in LONG]
    for draw in (figures.comparison, figures.robustness):
        yield f"{draw.__name__} eight", lambda draw=draw: draw(eight)
    long = [replace(iseg, name=f"nnU-Net, {number} " + "all its modalities " * 4) for number in "12345"]
    yield "comparison long names", lambda: figures.comparison(long)
    rows = [made_slice(NAME), made_slice("best case, of a patient whose name is longer than most " * 2, "t1")]
    yield "panels", lambda: slice_panels([*rows, made_slice(NAME, "t1+t1c+t2+flair")], LABELS, BRATS)


def drawn_texts(figure: Figure) -> list[tuple[Text, Bbox]]:
    """Lay out a figure and return the texts that it would draw, with their positions in pixels."""
    found, draw = [], Text.draw

    def note(self, renderer):
        if self.get_visible() and self.get_text().strip():
            found.append((self, self.get_window_extent(renderer)))
        draw(self, renderer)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Text, "draw", note)
        FigureCanvasAgg(figure)
        figure.draw_without_rendering()
    return found


def words(axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


@pytest.mark.parametrize(("name", "draw"), [pytest.param(n, d, id=n) for n, d in all_figures()])
def test_texts_are_whole_apart_and_large_enough(name, draw):
    figure = draw()
    figure.set_dpi(150)
    texts = drawn_texts(figure)
    assert texts
    assert figure.get_figwidth() in (style.COLUMN, style.PAGE)
    width, height = figure.bbox.size
    assert all(7 <= text.get_fontsize() <= 8 for text, _ in texts)
    x0, y0, x1, y1 = np.array([box.extents for _, box in texts]).T
    outside = (x0 < -0.5) | (y0 < -0.5) | (x1 > width + 0.5) | (y1 > height + 0.5)
    assert not [texts[i] for i in np.flatnonzero(outside)]
    apart = (x1[:, None] <= x0) | (y1[:, None] <= y0)
    covered = np.triu(~(apart | apart.T), k=1)
    assert not [(texts[i], texts[j]) for i, j in np.argwhere(covered)]


def test_heatmap_shows_the_means():
    full = with_gaps(measured(), 0.3)
    left, right = figures.heatmap(full).axes[:2]
    rows = full.results[full.results["metric"] == "dice"]
    means = [
        100 * rows[(rows["modalities"] == subset_name(s)) & (rows["region"] == r)]["value"].mean()
        for s in subsets(BRATS)
        for r in GLIOMA
    ]
    assert words(right) == [f"{mean:.1f}" for mean in means]
    np.testing.assert_allclose(right.images[0].get_array().ravel(), means)
    circles = left.collections[0]
    filled = circles.get_offsets()[circles.get_facecolor()[:, 0] == 0]
    assert {tuple(place) for place in filled[:6]} == {(0, 0), (1, 1), (2, 2), (3, 3), (0, 4), (1, 4)}
    assert len(filled) == 4 * 8


def test_boxplots():
    axes = figures.boxplots(toy({**TOY, "t1": [0.2, np.nan]})).axes[0]
    points = axes.collections[0].get_offsets()
    np.testing.assert_allclose(points[:, 1].filled(-1), [20, 50, 80, -1, 90, 100])
    np.testing.assert_allclose(points[1:3, 0], [0.85, 1.85])
    levels = [line.get_ydata()[0] for line in axes.lines if line.get_color() == style.COLOURS[1]]
    np.testing.assert_allclose(levels, [20, 70, 90])  # medians


def test_comparison():
    one, other = toy(), toy({"t1": [1.0], "t1+t2": [0.5]})
    figure = figures.comparison([one, replace(other, name="other")])
    heights = [line.get_ydata() for line in figure.axes[0].lines if line.get_linestyle() == "None"]
    np.testing.assert_allclose(heights, [[30, 70, 90], [100, np.nan, 50]])
    places = [line.get_xdata() for line in figure.axes[0].lines if line.get_linestyle() == "None"]
    np.testing.assert_allclose(places, [[-0.19, 0.81, 1.81], [0.19, 1.19, 2.19]])
    assert [text.get_text() for text in figure.legends[0].texts] == ["toy", "other"]
    shown = [handle.get_color() for handle in figure.legends[0].legend_handles]
    assert shown == [line.get_color() for line in figure.axes[0].lines if line.get_linestyle() == "None"]
    # Two cases: the interval reaches from one to the other; one case has none.
    several, single = ([s for s in lines.get_segments() if len(s)] for lines in figure.axes[0].collections[-2:])
    np.testing.assert_allclose([segment[:, 1] for segment in several], [[20, 40], [50, 90], [80, 100]])
    assert not any(np.isfinite(segment).all() for segment in single)


def test_robustness():
    axes = figures.robustness([toy()]).axes[0]
    np.testing.assert_allclose(axes.lines[0].get_xydata(), [[1, 50], [2, 90]])
    # Two cases: samples hold the first, the second or both, so 95 % reach from one to the other.
    np.testing.assert_allclose([segment[:, 1] for segment in axes.collections[0].get_segments()], [[35, 65], [80, 100]])


def test_means_are_over_the_subsets_that_all_methods_have():
    full, some = toy(), toy({"t2": [0.6, 0.4], "t1+t2": [0.9, 0.9]}, "some")
    figure = figures.robustness([full, some])
    np.testing.assert_allclose([line.get_ydata() for line in figure.axes[0].lines], [[70, 90], [50, 90]])
    methods = [toy({s: [0.5, 0.7]}, s) for s in ("t1", "t2")]
    assert figures.robustness(methods) is None
    assert figures.comparison(methods) is not None


def latents_of(modalities: Sequence[str], features: Sequence[Sequence[float]]) -> pd.DataFrame:
    rows = [(f"case{i}", m, *f) for i, (m, f) in enumerate(zip(modalities, features, strict=True))]
    return pd.DataFrame(rows, columns=[*LATENT_COLUMNS, *(f"f{i}" for i in range(len(features[0])))])


def test_embedding():
    rng = np.random.default_rng(0)
    features = np.concatenate([rng.normal(0, 1, (12, 8)), rng.normal(20, 1, (12, 8))])
    latents = latents_of(["t1"] * 12 + ["t1c"] * 12, features)
    one, other = (line.get_xydata() for line in figures.embedding(latents).axes[0].lines)
    assert one.shape == other.shape == (12, 2)
    within = max(np.linalg.norm(cloud - cloud.mean(axis=0), axis=1).mean() for cloud in (one, other))
    assert np.linalg.norm(one.mean(axis=0) - other.mean(axis=0)) > 2 * within
    np.testing.assert_array_equal(figures.embedding(latents).axes[0].lines[0].get_xydata(), one)


def test_panels():
    rows = [made_slice(), made_slice(subset="t1")]
    figure = slice_panels(rows, LABELS, BRATS)
    scores = "WT 90, TC 75, ET n/a"
    assert [frame.get_title() for frame in figure.axes] == ["reference", f"T1c+FLAIR\n{scores}", f"T1\n{scores}"]
    assert figure.subfigs[0].get_suptitle() == "worst case: a"
    shown = [frame.images[0].get_array() for frame in figure.axes]
    for image, (row, channel) in zip(shown, ((rows[1], 0), (rows[0], 3), (rows[1], 0)), strict=True):
        np.testing.assert_array_equal(image, row.images[channel, 10:50, 5:55].T.astype(np.float32))
    frames = figure.axes[:2]
    reference, prediction = ([c for c in frame.collections if isinstance(c, ContourSet)] for frame in frames)
    assert len(reference) == len(prediction) == 3
    whole = reference[0].get_paths()[0].vertices
    np.testing.assert_allclose([whole.min(axis=0), whole.max(axis=0)], [[3.5, 14.5], [15.5, 34.5]])
    np.testing.assert_allclose(prediction[0].get_paths()[0].vertices.min(axis=0), [3.5, 20.5])
    legend = figure.legends[0]
    assert [text.get_text() for text in legend.texts] == list(GLIOMA)
    assert "the patient's left is on the right" in legend.get_title().get_text()


def test_panels_are_radiological_and_keep_proportions():
    """Low x in RAS is the patient's left and drawn on the right; low y is the back and drawn at the bottom."""
    figure = slice_panels([replace(made_slice(), spacing=(1.0, 2.0))], LABELS, BRATS)
    FigureCanvasAgg(figure).draw()
    frame = figure.axes[1]
    (left, back), (right, _), (_, front) = frame.transData.transform([(0, 0), (39, 0), (0, 49)])
    assert left > right
    assert back < front
    box = frame.get_window_extent()
    assert box.height / box.width == pytest.approx(2 * 50 / 40, rel=0.02)


def test_rendered():
    files = style.rendered(figures.heatmap(toy()))
    assert files[".pdf"].startswith(b"%PDF")
    assert b"/FontFile2" in files[".pdf"]  # TrueType, embedded
    assert imread(BytesIO(files[".png"])).shape[1] == pytest.approx(150 * style.COLUMN, abs=1)
