"""Which numbers each key of the configs may have: one table, checked before anything is computed."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from monai.bundle import ConfigParser

from common.io.settings import optional


@dataclass(frozen=True)
class Range:
    """The numbers that a key may have; ``str`` says them in words.

    Attributes:
        low, high: limits, which are included.
        above, below: True if ``low`` or ``high`` itself is not included.
        whole: True if only whole numbers are.
        lengths: for a list of such numbers the lengths that it may have, 0 for any; None for a single number.
        rising: True if each item of a list has to be larger than the one before.
        also: another value that is right: ``null`` for the key, or a number, also as an item of a list.
        why: what the number is, where a wrong one is likely to be meant in another unit.
    """

    low: float = 0
    high: float = math.inf
    above: bool = False
    below: bool = False
    whole: bool = False
    lengths: tuple[int, ...] | None = None
    rising: bool = False
    also: float | str | None = None
    why: str = ""

    def __contains__(self, value: Any) -> bool:
        if self.also == "null" and optional(value) is None:
            return True
        if self.lengths is None:
            return self._has(value)
        listed = isinstance(value, Sequence) and not isinstance(value, str)
        if not listed or not (len(value) in self.lengths or 0 in self.lengths) or not all(map(self._has, value)):
            return False
        return not self.rising or all(first < second for first, second in pairwise(value))

    def _has(self, value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, int if self.whole else int | float):
            return False
        inside = self.low < value if self.above else self.low <= value  # False for NaN
        inside = inside and (value < self.high if self.below else value <= self.high)
        return (inside and math.isfinite(value)) or value == self.also

    def __str__(self) -> str:
        numbers = "a whole number" if self.whole else "a number"
        if self.lengths is not None:
            count = " or ".join(map(str, filter(None, self.lengths)))
            numbers = f"{count or 'a list of'} {'rising ' * self.rising}{numbers[2:]}s, each"
        first, last = "above " * self.above, "below " * self.below
        limits = f"from {first}{self.low:.10g} to {last}{self.high:.10g}"
        if self.high == math.inf:
            limits = f"above {self.low:.10g}" if self.above else f"of {self.low:.10g} or more"
        either = "" if self.also is None else f", or {self.also}"
        return f"{numbers} {limits}{either}{self.why and ', ' + self.why}"


COUNT, NUMBER = Range(1, whole=True), Range(whole=True)
SEED = Range(high=2**32 - 1, whole=True)  # the limit of NumPy
WEIGHT, POSITIVE = Range(), Range(above=True)
SHARE, PART = Range(high=1), Range(high=1, below=True)
"""A probability or fraction, and one that cannot be all: with it nothing would be left or nothing would move on."""
RATE = Range(high=1, above=True)
"""Of learning or averaging: at 0 nothing is learnt, and above 1 steps are larger than what they change."""
SIZE = Range(1, whole=True, lengths=(2, 3))
SPACING = Range(above=True, lengths=(3,), also=-1)  # -1 keeps an image's own

TABLE: tuple[tuple[Range, str], ...] = (
    (COUNT, "epochs pretrain_epochs teacher_epochs max_epochs ramp_epochs rounds steps steps_per_rate"),
    (COUNT, "val_interval checkpoint_interval batch_size pretrain_batch_size accumulation_steps metric_stride"),
    (COUNT, "sw_batch_size subsets_at_once width hidden embed_dim mlp_dim heads patch_size"),
    (NUMBER, "num_workers fusion_start_epoch"),
    (SEED, "seed split_seed mask_seed"),
    (RATE, "learning_rate discriminator_learning_rate lr rate_factor"),
    (Range(high=1, above=True, also="null"), "ema_momentum"),
    (SHARE, "learning_rate_x_sub weight_decay flip_prob affine_prob prob keep T_L T_M rho"),
    (PART, "overlap mask_ratio warmup scale zoom momentum gss.alpha"),
    (Range(high=1, above=True), "coarse_share"),
    (Range(high=1, above=True, below=True), "coverage"),
    (WEIGHT, "task_weight kd_weight dice_weight ce_weight kl_weight reconstruction_weight l1_weight l2_weight"),
    (WEIGHT, "full_weight missing_weight consistency_weight information_weight entropy_weight contrastive_weight"),
    (WEIGHT, "content_weight style_weight knowledge_weight adversary_weight gamma alpha margin"),
    (WEIGHT, "lambda_1 lambda_2 lambda_pmr lambda_con lambda_distil lambda_kl"),
    (WEIGHT, "shift power x_sub_std growth_factor"),
    (Range(0.01), "tau temperature"),  # below, a softmax is a step, and its gradients overflow
    (Range(high=math.pi, why="in radians"), "rotation"),
    (SIZE, "crop grid coarse_crop"),
    (SPACING, "spacing coarse_spacing"),
    (Range(high=100, lengths=(2,), rising=True), "percentiles"),
    (Range(high=1, below=True, lengths=(0,), also="null"), "missing_rates"),
    (Range(whole=True, lengths=(0,)), "growth"),
    (Range(lengths=(0,)), "crop_ratios"),
    (Range(lengths=(2,), rising=True), "beta_range"),
    (Range(high=1, below=True, lengths=(2,)), "discriminator_betas"),
)
"""Range and the keys that have it. ``gss.alpha`` is the key ``alpha`` of that bundle, where it has another meaning."""
RANGES: Mapping[str, Range] = {key: numbers for numbers, keys in TABLE for key in keys.split()}


def check_ranges(config: ConfigParser, bundle: str | None) -> None:
    """Refuse numbers outside the ranges of their keys: of top keys their values, within objects what is written there.

    Raises ValueError.
    """
    for key, written in _numbers(config.get()):
        name = key.rpartition("#")[2]
        numbers, top = RANGES.get(f"{bundle}.{name}", RANGES.get(name)), key == name
        if numbers is None or (not top and isinstance(written, list) != (numbers.lengths is not None)):
            continue  # or an argument of another class with this name
        value = config.get_parsed_content(key) if top else written
        if value not in numbers:
            raise ValueError(f"{key} {value!r}: expected {numbers}.")


def _numbers(config: Mapping[str, Any] | Sequence[Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every key at the top of a config, and those within that hold a number or a list of numbers."""
    pairs = config.items() if isinstance(config, Mapping) else enumerate(config)
    for name, value in pairs:
        listed = value if isinstance(value, list) else [value]
        if not above or all(isinstance(each, int | float) and not isinstance(each, bool) for each in listed):
            yield f"{above}{name}", value
        if isinstance(value, Mapping | list):
            yield from _numbers(value, f"{above}{name}#")
