"""What words say of contrast agent, in a text that `mmb.clinic.recognise.words.plain` returned.

No list of the words for "without" is complete. So words of contrast agent count only if what stands directly before
and behind them is known; otherwise they leave open whether it was given, and the image has to decide.
"""

import re
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

from mmb.clinic.recognise.words import is_known, matches, pattern, quoted

AGENT, NOT = map(pattern, ("{agent}", "(?:^| )({without}|{earlier})$"))


class Contrast(NamedTuple):
    """What words say of contrast agent."""

    after: bool | None  # a T1 was acquired after it; None if that is left open
    word: str  # its known words
    brief: bool = False  # the words may mean something else, such as "pre" and a final "c"
    unknown: bool = False  # it is left open because of what stands beside the agent's word


@cache
def contrast_said(text: str) -> Contrast | None:
    """Return what a `plain` text says of contrast agent; None if it says nothing."""
    both, native, briefly, after = (
        quoted(words, text) for words in ("{both}", "{native}", "{perhaps_before}", "{after}")
    )
    mentions = [*_mentions(text)]
    told = {was_given for was_given, _ in mentions}
    word = next((word for _, word in mentions), "")
    letter = _at_the_end(text) if not (mentions or after) else None
    if not (both or native or briefly or after or mentions or letter):
        return None
    before = native or next((word for was_given, word in mentions if was_given is False), None)
    given = after or next((word for was_given, word in mentions if was_given), "")
    if both:
        return Contrast(None, both)
    if before:
        return Contrast(None, f"{before} {given}") if given else Contrast(False, before)
    if briefly:
        opposite = given or word
        return Contrast(None, f"{briefly} {opposite}") if opposite else Contrast(False, briefly, brief=True)
    if None in told:
        return Contrast(None, next(word for was_given, word in mentions if was_given is None), unknown=True)
    return Contrast(True, given) if given else letter


def _mentions(text: str) -> Iterator[tuple[bool | None, str]]:
    """Yield for each word of an agent whether it was given (None: open), and the word with what is known before it."""
    for match, word in matches(r"{agent}|{unclear_agent}|(?<=s/ )c|(?<=- )c|(?<=\+- )c", text):
        before, behind = text[: match.start()].rstrip(), text[match.end() :].lstrip()
        before = re.sub(pattern("{filler}$"), "", f" {before}").strip()
        negation = re.search(NOT, before)
        last, first = before.rpartition(" ")[2], re.sub(r"^\d+$", "", behind.partition(" ")[0])
        if negation:
            yield False, f"{negation[1]} {word}"
        elif last and re.fullmatch(AGENT, last):
            continue  # "injection de gadolinium" is one mention
        elif re.match(pattern("(?:{not_given})(?: |$)"), behind) and not re.match(r"(no|non) [^ ]", behind):
            yield None, word
        elif re.fullmatch(AGENT, match[0]) and (not last or is_known(last)) and (not first or is_known(first)):
            yield True, f"{last} {word}" if re.fullmatch(pattern("{later}"), last) else word
        else:
            yield None, word


def _at_the_end(text: str) -> Contrast | None:
    before = re.fullmatch(r"(.*?) ?\bc", text)
    if before is None:
        return None
    last = before[1].rpartition(" ")[2]
    if re.search(NOT, before[1]):
        return Contrast(False, f"{last} c")
    return Contrast(True, "c", brief=True) if not last or is_known(last) else Contrast(None, "c", True, unknown=True)
