"""Random draws, compared with the law that they should follow."""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence

from scipy.stats import chisquare

KEPT_OF_FOUR = dict.fromkeys((1, 2, 3, 4), 1 / 4)
"""How many of four modalities a step of M3AE keeps (`common.transforms.random_subsets`)."""


def follow(drawn: Sequence[Hashable], law: Mapping[Hashable, float]) -> bool:
    """Return whether outcomes are as frequent as a law says and no others occur (chi-square test, p = 0.001)."""
    counts, expected = Counter(drawn), [len(drawn) * probability for probability in law.values()]
    assert min(expected) >= 5, "draw more: the test is for at least five of each outcome"
    return counts.keys() <= law.keys() and chisquare([counts[outcome] for outcome in law], expected).pvalue > 0.001
