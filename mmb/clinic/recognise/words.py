"""The one vocabulary of headers, sidecars and file names: words of sequences, and of what is no image of one.

Its words are data, ``words.toml``, and frozen: a description that is not understood is a case for a site's table
(`mmb.clinic.recognise.site`) and for the image, not for another word. `plain` makes one form of every text, which the
others read.
"""

import re
import tomllib
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

from common.cohorts.names import BODY, PLANE, PROCESSED, TECHNIQUE
from common.modalities import ALIASES

_TABLE: dict[str, Any] = tomllib.loads(Path(__file__).with_name("words.toml").read_text(encoding="utf-8"))
_WILDCARD = re.compile(r"\\w\*|\[a-z\]\*")
"""The parts of the words' patterns that match any letters, among which may be names."""
_SIGNS = {"±": "+-", "−": "-", "§": "s/"}
_LETTERS = str.maketrans({"ø": "o", "ł": "l", "ß": "ss", "æ": "ae", "đ": "d", "ı": "i", "–": "-", "—": "-", "−": "-"})


@cache
def pattern(text: str) -> str:
    """Return a regular expression with the table's words in the place of ``{name}``."""
    return re.sub(r"\{([a-z_]+)\}", lambda name: pattern(_alternatives(_TABLE[name[1]])), text)


def _alternatives(words: str | list[str]) -> str:
    return words if isinstance(words, str) else "|".join(words)


LEFT_OUT, TWO_MEANINGS, WEIGHTINGS = (
    {kind: pattern(_alternatives(words)) for kind, words in _TABLE[name].items()}
    for name in ("left_out", "two_meanings", "weightings")
)
UNIFORM, DENOISED, NO_AGENT = map(pattern, ("{uniform}", "{denoised}", "{no_agent}"))


@cache
def plain(text: str) -> str:
    """Return a text in lower case, without accents, as words and signs that are separated by single spaces.

    A word has letters, digits and ``*``. Signs are ``+``, ``;``, ``+-``, and ``-`` if it is no hyphen (``T1 -KM``,
    ``KM-``). ``s/`` stays, and an agent's word is separated from what it is glued to (``t1gd``, ``nogad``).
    """
    text = unicodedata.normalize("NFKD", text.lower()).translate(_LETTERS)
    text = unicodedata.normalize("NFC", re.sub(r"[\u0300-\u036f]", "", text))
    text = re.sub(r"\+-|\+ ?/ ?-|- ?/ ?\+|±", " ± ", text)
    text = re.sub(r"(?<![^\s_(\[])-(?=[^\W_])|(?<=[^\W_])-(?=[\s_)\]]|$)|(?<=\()-(?=\))|-\s*$", " − ", text)
    text = re.sub(r"(?<![^\W_])s ?/", " § ", text)
    text = re.sub(r"(?<=[a-z0-9])(?=[^\W\da-z_])|(?<=[^\W\da-z_])(?=[a-z0-9])", " ", text)  # Latin and other letters
    text = re.sub(r"(增[强強]|造影|조영)", r" \1 ", text)
    text = re.sub(pattern(r"(?<=[a-z0-9])(?=(?:{glued})(?![^\W_]))"), " ", text)
    words = re.findall(r"[^\W_](?:[^\W_]|\*)*|[*+;±−§]", text)
    return " ".join(_SIGNS.get(word, word) for word in words)


def weightings(text: str) -> dict[str, str]:
    """Return weighting -> the word that indicates it, for the weightings that a `plain` text names."""
    text = _unsigned(text)
    named = {name: word for name, words in WEIGHTINGS.items() if (word := quoted(words, text))}
    short = {"flair": word} if not named and (word := quoted("{flair_in_short}", text)) else {}
    return named or short


def excluded_kind(text: str) -> tuple[str, str] | None:
    """Return as what a `plain` text says that an image is no candidate, and the word; None if it may be one."""
    text = re.sub(r"\b(t[12](?:ce|gd|[wc])?|flair)(?=[a-z]{3,})", r"\1 ", _unsigned(text))  # t1sub, flairmask
    word = other_body(text)
    return _kind(LEFT_OUT, text) or (("image of another part of the body", word) if word else None)


def doubtful_kind(text: str) -> tuple[str, str] | None:
    """Return what a `plain` text may mean that is no candidate, and the word; None if nothing."""
    return _kind(TWO_MEANINGS, _unsigned(text))


def has_unknown_words(text: str) -> bool:
    """Return whether a `plain` text has words beside those of sequences: a name, or what software made of an image."""
    words = re.findall(r"[^\W\d_]{3,}\w*", text)
    against = pattern("{without}|{earlier}|{native}|{not_given}")
    return any(not (is_known(word) or re.fullmatch(against, word)) for word in words)


def no_magnitude(values: Iterable[str]) -> tuple[str, str] | None:
    """Return as what values of ImageType and the like say that an image is no magnitude, and the first that does."""
    for value in values:
        parts = {*re.split(r"[\W_]+", value.upper())}
        for kind, known in _TABLE["no_magnitude"].items():
            if parts & {*known} and not parts & {*_TABLE["in_phase"]}:
                return kind, value
    return None


def other_body(text: str) -> str | None:
    """Return the part of the body other than the head that a `plain` text names, unless it names the head too."""
    return None if quoted(BODY, text) else quoted("{other_body}", text)


def quoted(words: str, text: str) -> str | None:
    """Return the first words in a text that match a `pattern`, without the letters that its wildcards match."""
    return next((word for _, word in matches(words, text)), None)


def matches(words: str, text: str) -> Iterator[tuple[re.Match[str], str]]:
    """Yield each match of a `pattern` in a text, and what is `quoted` of it."""
    for match in _compiled(words).finditer(text):
        start, end = match.span()
        hidden = {k for name in match.groupdict() for k in range(*match.span(name))}
        yield match, "".join(text[k] for k in range(start, end) if k not in hidden)


@cache
def is_known(word: str) -> bool:
    """Return whether a word beside an agent's is known to say nothing against it."""
    known = pattern(r"{with}|{later}|[+;*c]|{agent}|{other_body}|({treated})\w*|{code}|{uniform}|{denoised}")
    if word in ALIASES or re.fullmatch(
        "|".join([known, *WEIGHTINGS.values(), PLANE, TECHNIQUE, BODY, PROCESSED]), word
    ):
        return True
    sequence = re.fullmatch(
        pattern(r"{prefix}(?:t[12]|flair|pd)w?(?P<rest>.*)|(?:mp ?rage|bravo|vibe)(?P<more>.*)"), word
    )
    return sequence is not None and ((rest := sequence["rest"] or sequence["more"] or "") == "" or is_known(rest))


def _kind(table: Mapping[str, str], text: str) -> tuple[str, str] | None:
    return next(((kind, word) for kind, words in table.items() if (word := quoted(words, text))), None)


def _unsigned(text: str) -> str:
    """Return a text without the signs that only matter for contrast agent."""
    return " ".join(word.rstrip("/") for word in text.split() if word not in ("-", "+-"))


@cache
def _compiled(words: str) -> re.Pattern[str]:
    wildcards = count()
    marked = _WILDCARD.sub(lambda wildcard: f"(?P<any{next(wildcards)}>{wildcard.group()})", pattern(words))
    return re.compile(rf"(?<![^\W_])(?:{marked})(?![^\W_]|\*)")
