"""Whatever changes a result changes the fingerprint of what computes it, and nothing else does."""

import collections
import functools
import operator
import os
import re
import subprocess
import sys
import threading
import types

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.transforms import Compose, Lambdad, Orientationd, Spacingd
from torch import nn

from common.io.fingerprint import UnknownError, fingerprint
from common.networks import M3AE
from common.transforms import ScaleBrainIntensityd


def times(image, gain):
    return image * gain


def enclosing(gain):
    return lambda image: image * gain


def by_default(gain):
    def change(image, gain=gain):
        return image * gain

    return change


def counted(gain):
    """A function that an installed decorator wraps: only the closure tells what it does."""
    return functools.lru_cache(enclosing(gain))


class Gain:
    def __init__(self, gain):
        self.gain = gain

    def __call__(self, image):
        return image * self.gain


class Slotted(Gain):
    __slots__ = ("gain",)


class Named(dict):
    def __call__(self, image):
        return image * self["gain"]


class Net(nn.Module):
    def __init__(self, gain):
        super().__init__()
        self.conv = nn.Conv3d(1, 1, 1)
        self.gain = gain


class Hidden(nn.Module):
    def __init__(self, gain):
        super().__init__()
        self._gain = gain


class Silent(float):
    def __repr__(self):
        return "a number"


def with_gain(value, gain):
    value.gain = gain
    return value


def of_config(gain):
    step = {"_target_": "Lambdad", "keys": "image", "func": "$lambda image: image * @gain"}
    return ConfigParser({"gain": gain, "other": gain, "step": step}).get_parsed_content("step")


def of_program(text):
    module = types.ModuleType("made")
    exec(text, module.__dict__)
    return module


def with_hook(gain):
    net = Net(1)
    net.register_forward_hook(lambda module, inputs, output: output * gain)
    return net


def with_buffer(value):
    net = Net(1)
    net.register_buffer("unsaved", torch.tensor(float(value)), persistent=False)
    return net


def instead(gain):
    net = Net(1)
    net.forward = enclosing(gain)
    return net


CHANGES = {
    "a value of a config that a lambda refers to": of_config,
    "functools.partial": lambda gain: functools.partial(times, gain=gain),
    "an enclosed variable": enclosing,
    "a default argument": by_default,
    "a bound method": lambda gain: Gain(gain).__call__,
    "an attribute": Gain,
    "an attribute in a slot": Slotted,
    "an item of a dict of one's own": lambda gain: Named(gain=gain),
    "an attribute of a network": Net,
    "a hook of a network": with_hook,
    "a buffer that is not saved": with_buffer,
    "a network's forward, replaced": instead,
    "what an installed decorator encloses": counted,
    "a constant": lambda gain: eval(f"lambda image: image * {gain}"),
    "the order of arguments": lambda gain: eval(f"lambda {'image, by' if gain == 1 else 'by, image'}: image / by"),
    "a function that it calls": lambda gain: of_program(f"def a(x): return x * {gain}\ndef run(x): return a(x)").run,
    "a constant of its module": lambda gain: of_program(f"GAIN = {gain}\ndef run(x): return x * GAIN").run,
    "a base class": lambda gain: of_program(f"class A:\n def f(x): return {gain}\nclass B(A): pass").B(),
    "a class method": lambda gain: of_program(f"class A:\n @classmethod\n def f(x): return {gain}").A(),
    "a property": lambda gain: of_program(f"class A:\n @property\n def f(x): return {gain}").A(),
    "a class attribute": lambda gain: of_program(f"class A:\n gain = {gain}").A(),
    "a function within a function": lambda gain: of_program(f"def run(x):\n def a(): return {gain}\n return a()").run,
    "an attribute of a function": lambda gain: functools.update_wrapper(eval("lambda x: x"), Gain(gain), ()),
    "an array": lambda gain: Gain(np.full(3, gain)),
    "a tensor": lambda gain: Gain(torch.full((3,), gain)),
    "a pattern": lambda gain: Gain(re.compile(str(gain))),
    "a getter": lambda gain: operator.itemgetter(gain),
    "the type of a number": lambda gain: Gain(1 if gain == 1 else 1.0),
    "a text instead of a number": lambda gain: Gain(1 if gain == 1 else "1"),
    "the type of a key": lambda gain: {1 if gain == 1 else "1": 0},
    "the order of steps in a dict": lambda gain: Gain(dict([("a", 1), ("b", 2)][:: 3 - 2 * gain])),
    "what a dict returns by default": lambda gain: collections.defaultdict(functools.partial(int, gain)),
    "a number with a text of its own": Silent,
    "an attribute of a number": lambda gain: with_gain(Silent(1), gain),
    "an attribute of a dict-like object": lambda gain: with_gain(collections.UserDict(), gain),
    "an attribute of a network that is private": Hidden,
    "a method with arguments": lambda gain: type("A", (Gain,), {"__call__": functools.partialmethod(times, gain)}),
    "a global variable by its text": lambda gain: of_program(f"GAIN = {gain}\ndef run(): return globals()['GAIN']").run,
    "a function of several types": lambda gain: functools.singledispatch(enclosing(gain)),
    "a masked array": lambda gain: np.ma.masked_equal([1, 2, 3], gain),
    "a tensor in bfloat16": lambda gain: torch.full((3,), gain, dtype=torch.bfloat16),
    "a sparse tensor": lambda gain: (gain * torch.eye(3)).to_sparse(),
    "where an image lies": lambda gain: MetaTensor(torch.ones(1, 2, 2, 2), affine=gain * torch.eye(4)),
    "a set": lambda gain: Gain({"a", gain}),
    "the order of steps": lambda gain: Compose([Spacingd("image", 2), Gain(1)][:: 3 - 2 * gain]),
    "a step of MONAI's": lambda gain: Spacingd("image", pixdim=gain),
    "a step of ours": lambda gain: ScaleBrainIntensityd("image", lower=gain, upper=99),
    "a network of ours": lambda gain: M3AE(4, 3, 8 * gain, [16, 16, 16]),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_seen(change):
    make = CHANGES[change]

    assert fingerprint(make(1)) == fingerprint(make(1))
    assert fingerprint(make(1)) != fingerprint(make(2))
    assert fingerprint(Lambdad("image", make)) == fingerprint(Lambdad("image", make))


FILES = {
    "step": """
from helper import scale
import other
from os import path

GAIN = 1

class Step:
    def __call__(self, image):
        import late
        from package import part
        return scale(image) * late.GAIN + other.inner.SHIFT + part.OFFSET
""",
    "helper": "def scale(image):\n    return image * 2\n",
    "other": "import json, other_inner as inner, second  # 1\n",
    "other_inner": "SHIFT = 1\n",
    "second": "# 1\nfrom package import chosen\n",
    "late": "GAIN = 3\n",
    "package/__init__": "",
    "package/part": "from . import beside\nOFFSET = 1 + beside.OFFSET\n",
    "package/beside": "OFFSET = 1\n",
    "package/chosen": "OFFSET = 1\n",
}
SHOW = """
import os, sys
from common.io.fingerprint import fingerprint

for folder in sys.stdin:
    if os.fork() == 0:
        sys.path.insert(0, folder.strip())
        from step import Step
        print(fingerprint(Step()), flush=True)
        os._exit(0)
    os.wait()
"""


@pytest.fixture(scope="module")
def shown():
    """Return a function that prints the fingerprint of a folder's step, each time by a process that reads it anew."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONDONTWRITEBYTECODE": "1"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", SHOW], env=environment, text=True, **pipes) as process:

        def show(folder):
            print(folder, file=process.stdin, flush=True)
            return process.stdout.readline()

        yield show
        process.stdin.close()


@pytest.mark.parametrize("edited", [name for name, text in FILES.items() if text])
def test_an_edit_of_a_file_that_ones_own_step_uses_is_seen(edited, tmp_path, shown):
    """Also one that the step imports only while it runs, or that what it imports does."""
    (tmp_path / "package").mkdir()
    for name, text in FILES.items():
        (tmp_path / f"{name}.py").write_text(text)
    before = shown(tmp_path)
    (tmp_path / f"{edited}.py").write_text(FILES[edited].replace("1", "11").replace("2", "22").replace("3", "33"))

    assert re.fullmatch(r"[0-9a-f]{16}\n", before)
    assert shown(tmp_path) != before


def test_a_file_that_a_step_names_is_part_of_it(tmp_path):
    atlas = tmp_path / "atlas.nii"
    atlas.write_bytes(b"1")
    before = fingerprint(Gain(str(atlas)))
    atlas.write_bytes(b"12")

    assert fingerprint(Gain(str(atlas))) != before


def test_what_does_not_change_a_result_is_not_seen():
    """Other values of the same config, random states, weights, and the order in which a set was filled."""
    one, two = (ConfigParser({"gain": 1, "other": other, "step": "$lambda image: image * @gain"}) for other in (1, 2))
    first, second = Net(1), Net(1)
    nn.init.constant_(second.conv.weight, 7)

    assert fingerprint(one.get_parsed_content("step")) == fingerprint(two.get_parsed_content("step"))
    assert fingerprint(np.random.RandomState(1)) == fingerprint(np.random.RandomState(2))
    assert fingerprint(first) == fingerprint(second)
    assert fingerprint({"a", "b"}) == fingerprint({"b", "a"})


def test_what_contains_itself_has_one():
    loop = Gain(1)
    loop.gain = [loop]

    assert len(fingerprint(loop)) == 16


@pytest.mark.parametrize("value", [(i for i in "abc"), memoryview(b"a"), sys.stdout, np.frompyfunc(abs, 1, 1)])
def test_what_does_not_say_what_it_is_made_of_is_refused(value):
    with pytest.raises(UnknownError, match="does not say what it is made of"):
        fingerprint(Gain(value))


def test_a_transform_that_was_used_is_the_same():
    step = Orientationd("image", "RAS", labels=None)
    before = fingerprint(step)
    step({"image": MetaTensor(torch.zeros(1, 2, 2, 2))})
    assert fingerprint(step) == before


def test_locks_and_loggers_have_no_part_in_a_result():
    assert fingerprint(Gain(threading.Lock())) == fingerprint(Gain(threading.Lock()))
