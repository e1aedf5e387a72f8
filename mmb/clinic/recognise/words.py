"""The one vocabulary of DICOM headers, BIDS sidecars and file names: words of sequences and of contrast agent, and what
is no image of a sequence.

`plain` makes one form of every text; `weightings`, `excluded_kind` and `contrast_said` read it. Headers are read by
`mmb.clinic.recognise.header`, names of files by `mmb.clinic.recognise.image_files`. The words are parts of regular
expressions for such a text, unless another use is stated.

No list of the words for "without" is complete. So words of contrast agent count only if what stands directly before
them is known; otherwise they leave open whether it was given, and the image has to decide.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from itertools import count
from typing import NamedTuple

from common.cohorts.names import BODY, PLANE, PROCESSED, TECHNIQUE
from common.modalities import ALIASES

LEFT_OUT = {
    "localizer": r"loc|locali[sz]ers?|scout|survey|topogram|reperage|3 ?pl(ane)?|calibration|ref ?scan|smartbrain",
    "subtraction": r"subs?(?! ?\d)|subst?r\w*|s?ubtr\w*|soustr\w*|sustrac\w*|sottra\w*|cikarma|"
                   r"sous(?! ?(ga?d|contr|prod|inj|ag))|differen[cz]\w*|minus (pre|nativ\w*|t1\w*)|post ?minus",
    "projection": r"[a-z]?mips?|min ?ip|mnip|(max|min|minimum|maximum) ip|projection image|vrt|"
                  r"((volume|surface|3d) ?)?render(ed|ing)?",
    "curved reformat": r"curv(ed|ilin)\w*|cpr",
    "diffusion": r"(iso|reg|ssh|[a-z])?dwi(?!ght)\w*|dw|[a-z]?dti\w*|dki|diff|\w*dif+us\w*|[a-z]?e?adc( ?maps?)?|"
                 r"exponential adc|(col ?)fa|fa ?maps?|trace( ?(w|maps?|images?))?|tensor\w*|b ?[1-9]\d{2,3}|b0|ivim|"
                 r"noddi|hardi|dsi",
    "perfusion": r"perf|perfu[sz]\w*|pwi|dsc|dce|([23]d)?(p|c|pc|v|ve|q|e|g)?asl([23]d)?|"
                 r"(rel|[rnks])?cb[vf] ?(corr|leak|maps?)?|mtt|ttp|tmax|k ?trans|gbp|pbp",
    "functional image": r"bold|cine|(rs ?)?fmri\w*|rest state|resting( state)?|mosaic|t ?test",
    "susceptibility": r"[a-z]?swi(p|s|m|mag|pha|3d|[23]d\w*)?|e?swan|ven ?bold|suscept\w*|ha?emo|qsm",
    "T2*": r"[a-z]?t2w?d? ?(\*\w*|(star|stern|etoile|estrel|stella|ffe|gre|hemo|flash|fl2d)\w*)|t2s|gre t2",
    "angiography": r"([23]d)?tof([23]d|mra|angio)?|[a-z]?3di|mr[av]|(mr ?)?angio(gra(m|phy|phie|fia))?|venogra\w*|"
                   r"3d ?pc|pca|inhance|tricks|twist|trance|cow|carotids?",
    "vessel wall image": r"vessel ?walls?|gefasswand|paroi vasc\w*|dante",
    "phase or field map": r"(?<!in )(?<!early )(?<!late )(?<!delayed )(?<!venous )(?<!arterial )(?<!no )"
                          r"phase(?! (enc|over|wrap|fov|dir|ap|pa|rl|lr|hf))|pha|"
                          r"ph(?=( e?\d)* *$)|b[01]\w* map|field ?map\w*|fmap\w*|gre field\w*|fm (base|pre|post)\w*|"
                          r"part (real|imag\w*)|imaginary|(real|imag) (part|images?|recon\w*)|magnitude [12]",
    "STIR": r"[a-z]?stir",
    "double or phase-sensitive inversion": r"dir|psir|inv ?[12]",
    "steady-state image": r"ciss|ci3d|fiesta\w*|trufi\w*|b ?(ffe|tfe)",
    "spectroscopy": r"svs|csi|mrsi?|s?laser|spectro\w*",
    "parameter map": r"([tr][12]|[a-z]*) ?map(s|ping)?|q[tr][12]\w*|[tr][12] ?rho|r2 ?(\*|star)?|relaxometry|mapit|"
                     r"molli|t1 images|karten?|despot\d?|vfa|mtr|"
                     r"relaxation|fingerprint\w*|mrf|cest|apt ?w?|elastogra\w*|g ?factor|"
                     r"(fat|water) ?frac\w*|fraction|pdff",
    "synthetic image": r"synt(?!h?(strip|morph))\w*|syn|symri|sy ?(t[12]|flair|pd)\w*|magic|predict\w*|fake|"
                       r"pred(?= (t[12]|flair))|generated|imput\w*|pseudo ?ct",
    "mask or segmentation": r"[a-z]*mask(s|e)?|seg(?! ?\d)|(auto)?(?<!shot )segm\w*(?! (plan|nav)\w*)|labels?|roi ?\d*|"
                            r"contours?|kontur\w*|[gcp]tv|prob|probab\w*|warp(ed\w*|field\w*)|(\d|inverse)+warp|xfm|"
                            r"overlay\w*|parcel\w*|[a-z]*parc|pve|[a-z]+seg|^m?w?r?c[1-6]( ?t1\w*)",
    "fused image": r"(?<!for )fus(ed|ion)\w*|blended|checkerboard",
    "fat or opposed-phase image": r"^fat|fat ?(only|images?)|opp(osed)?|out ?(of ?)?phase|ff|"
                                  r"m?dixon(?=( .*)? (f|ff|fat|op|out)( \d+)* *$)",
    "screen picture": r"screen ?(shot|save|cap\w*|grab|picture)s?|key images?|pictures?|snapshots?|qc",
    "result of software": r"[a-z]+volumetr\w*|morphometr\w*|wmh\w*|z ?scores?(?! norm)|(?<! \d )ratio|"
                          r"ico(brain|metrix)|neuroquant|quantib|mdbrain|isodos\w*|isosurf\w*|bias ?field|tractogra\w*|"
                          r"lesion ?(quant|maps?|load|counts?|fill\w*)|(cortical|mean) ?thick\w*|"
                          r"thickness ?maps?|atrophy|heat ?maps?|"
                          r"flair ?(\*|star)|tissue ?class\w*|jacobian\w*|(gr[ae]y|white) matter|"
                          r"changes?|annotat\w*|textures?|uncertain\w*|saliency|grad ?cam|deform\w*|brain ?age|"
                          r"centiles?|rt ?(struct|dose)\w*|3d ?print\w*",
}  # fmt: skip
"""Kind of image that is not a candidate -> words in descriptions or values of ImageType that indicate it."""
TWO_MEANINGS = {
    "localizer": r"cal",
    "diffusion": r"fa(?! ?\d)|(?<!deep )resolve",
    "susceptibility": r"medic|merged?",
    "screen picture": r"screen\w*|summary|report\w*",
    "mask or segmentation": r"warp|lesions|contouring",
    "image of a part of the head": r"iac|iam|orbit\w*|pituitary|sella|hypophys\w*|przysadk\w*|fac(e|ial)|felsenbein",
    "spectroscopy": r"press",
    "result of software": r"\w*volumetr\w*|results?|analysis|ai|quant\w*|pred(?= *$)|kinetics?|models?|volumes",
}
"""The same for words that may mean something else too (FA: flip angle; merge: planning). Where an image's weighting is
named, such a word makes it less sure."""
NO_MAGNITUDE = {
    "parameter map": {"FRACTION", "FRAC", "FATFRAC", "WATERFRAC", "FF", "WF", "PDFF", "R2STAR", "T2STAR", "B0", "B1"},
    "fat or opposed-phase image": {"FAT", "F", "OUT", "OPP", "OPPOSED", "OP"},
    "phase, real or imaginary part": {"P", "PH", "PHA", "PHASE", "R", "CR", "REAL", "I", "IMAG", "IMAGINARY", "MIXED"},
}
"""Kind of image that shows no magnitude -> parts of values of ImageType, FrameType or ComplexImageComponent."""
IN_PHASE = {"IN", "INPHASE", "IP"}
"""Parts of values for water and fat in phase, whose magnitude it is (``IN_PHASE``)."""

PREFIX = r"([a-z]?[23]d|wip|vw|[a-z])?"
"""Letters that vendors put before a weighting, e.g. Philips: sT1W, eT2W, WIPT1W."""
WEIGHTINGS = {
    "t1": rf"{PREFIX}t1[a-z]*(3d[a-z]*)?|mp2? ?rage\w*|unit1|uni ?den|\w*spgr\w*|bravo|vibe",
    "t2": rf"{PREFIX}t2[a-z]*(3d[a-z]*)?|frfse\w*",
    "flair": rf"{PREFIX}flair\w*|t[12]w?flair|t2f|fla|dark ?fluid\w*|da ?fl|fluid attenuated",
    "pd": rf"{PREFIX}pdw?|dp|proton density|densit\w* (d\w* )?proton\w*|rho",
}
"""Weighting -> words that indicate it."""
UNIFORM = r"uni|unit1|uni ?den|uni ?images?"
"""Words for the T1 image of MP2RAGE, which is computed of its two inversions."""
DENOISED = r"(uni ?)?den|denoised"
FLAIR_IN_SHORT = "fl"
"""FLAIR in CaPTk's names (``FL_to_SRI``), if they name no other weighting; Siemens calls FLASH so (``t1_fl_tra``)."""

# Contrast agent

AGENT = (
    r"ga?d|inj|injec(t|te|ted|tion|tado|tada|cion|cao)|injektion|km|ce|mdc|civ|pdc|contr|"
    r"[ck]ontrast(e|o|s|i|u|a|e?d|om|em|ne?|mittel|medium|media|medel|middel|stof|agent)?|kontrascie|"
    r"enh|enhanced?|enhancement|gado|gadol|gadolini\w{1,2}|gadovist|gadavist|gadobutrol|gadoter\w{2,5}|"
    r"gadopentet\w{1,4}|gadobenat\w{1,2}|gadopiclenol|gadodiamide?|gadoteridol|gadoxet\w{1,4}|dotarem|prohance|"
    r"magnevist|multihance|vueway|elucirem|clariscan|omniscan|optimark|dotagraf|primovist|eovist|ablavar|artirem|"
    r"контраст(ом|а|у|е|ное|ным)?|ку|增[强強]|造影|조영"
)
"""Words for contrast agent."""
UNCLEAR_AGENT = r"[ck]ontras[ctz]\w*|gado\w*|inje[ck]\w*|контраст\w*"
"""Such words with endings that are not known, which may mean the opposite (Turkish ``kontrastsiz``)."""
GLUED = r"ga?d|gado\w*|km|[ck]ontras[ctz]\w*|enhanced|inj|injec\w*|mdc"
"""Words for contrast agent that are written without a space before them: ``t1gd``, ``nogad``, ``precontrast``."""
TREATED = r"op|er|proc|surg|chir|cirug|resec|biops|embol|rt|rad|xrt|crt|srs|sbrt|gk|gamma|chemo|treat|ther|bestr"
"""Beginnings of words after "pre" and "post" that do not refer to contrast agent ("er" is for "posterior")."""
PLANNED = r"nav|stealth|brainlab|plan"
"""Words of surgical planning: "pre stealth" does not mean before contrast agent. They do not count after "post", since
planning images are often acquired after contrast agent ("post stealth")."""
WITHOUT = r"without|w ?o|no|non|not|un|sans|ohne|sin|sem|senza|zonder|bez|uten|utan|uden|minus|без|[无無未非]"
EARLIER = r"pre|before|vor|avant|antes|ante|prima|pred|przed|voor|до"
WITH = r"with|w|con|com|mit|avec|met|med|ze?|с|plus"
LATER = r"post|after|nach|apres|pos|dopo|despues|tras|po|na|efter|etter|после|sous"
FILLER = r"(?: (?:de|del|di|du|do|da|d|of|the|any|iv|i v|agent))*"
"""Words between these and the agent's that change nothing: ``without any i.v. contrast``."""
NOT_GIVEN = r"-|\+-|0(?! \d)|free|frei|fri|vrij|less|none|no|non|nein|nil|off|neg\w*|yok|nelkul|前|전|[无無]|なし"
"""Words and signs directly behind an agent's word that may mean its absence: ``KM-``, ``contrast-free``."""
NATIVE = (
    rf"({WITHOUT}|{EARLIER}) ?(c|con)|nativ\w*|natif|nat|plain|blanco|basale?|unenh\w*|"
    r"t1w?(n|pre|nat\w*)|ss inj\w*|平[扫掃]"
)  # fmt: skip
"""Words for a T1 without contrast agent that do not name the agent."""
PERHAPS_BEFORE = rf"(pre|before|vor|avant)(?! ?({TREATED}|{PLANNED}))|({WITHOUT}|none|nein|nil|yok)(?= *$)"
"""Words for a T1 before or without contrast agent that may mean something else: "pre", "vor", a final "without"."""
AFTER = (
    rf"post(?! ?({TREATED}))\w*|\+ ?(c|ga?d\w*|km|ce|contrast|k)|c \+|t1w?(c|ce|post)|ct1|"
    rf"(after|nach|apres|avec)(?! ?({TREATED}))"
)
"""Words for a T1 after contrast agent, which do not name the agent or name it by a letter."""
AND = r"(and|und|et|e|y|i|en|og|och|\+|&)?"
BOTH = (
    rf"w ?wo|w w ?o|({WITH}) ?{AND} ?({WITHOUT})|(?!non? con)({WITHOUT}) ?{AND} ?({WITH})|"
    rf"({EARLIER}) ?{AND} ?post(?! ?({TREATED}))|post ?{AND} ?pre(?! ?({TREATED}))"
)
"""Words for a whole examination with and without contrast agent."""

_CODE = r"[a-z]{0,2}0*[1-9]\d*[a-z]{0,2}|[a-z]{1,2}0+"
"""Numbers and codes, such as ``3d``, ``p2`` and ``1mm``; 0 is none, which may mean that no agent was given."""
OTHER_BODY = (
    r"([ctls]|hw|bw|lw) ?spine|[hbl]ws|\w*spine|spinal\w*|rachis\w*|wirbel\w*|columna|colonna|coluna|colonne|lombaire|"
    r"lomber|omurga|fo?etal|neck|hals|cuello|collo|cervical\w*|lumbar|lumbal\w*|thora\w*|torax|knee|knie|shoulder|"
    r"abdom\w*|pelvi\w*|liver|prostat\w*|breast|mamma\w*|cardiac|heart"
)
"""Parts of the body other than the head, in lower case; values of BodyPartExamined as well."""
NO_AGENT = (
    r"|no|none|non|nein|n|0|nil|null|na|n ?a|not applicable|without\w*|ohne\w*|nativ\w*|no contrast|unknown|false"
)
"""Values of `AGENT_NAMED` that mean that no contrast agent was given."""


class Contrast(NamedTuple):
    """What words say of contrast agent.

    Attributes:
        after: whether a T1 was acquired after it; None if that is left open.
        word: the words, of which only known ones are given.
        brief: whether the words may mean something else, such as "pre" and a final "c".
        agent: whether the agent itself is named.
        unknown: whether it is left open because of what stands beside the agent's word.
    """

    after: bool | None
    word: str
    brief: bool = False
    agent: bool = False
    unknown: bool = False


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
    words = re.findall(r"[^\W_](?:[^\W_]|\*)*|[*+;±−§]", _separated(text))
    return " ".join(_SIGNS.get(word, word) for word in words)


def weightings(text: str) -> dict[str, str]:
    """Return weighting -> the word that indicates it, for the weightings that a `plain` text names."""
    text = _unsigned(text)
    named = {name: word for name, pattern in WEIGHTINGS.items() if (word := quoted(pattern, text))}
    short = {"flair": FLAIR_IN_SHORT} if not named and quoted(FLAIR_IN_SHORT, text) else {}
    return named or short


def excluded_kind(text: str) -> tuple[str, str] | None:
    """Return as what a `plain` text says that an image is no candidate, and the word; None if it may be one."""
    text = _unglued(_unsigned(text))
    word = other_body(text)
    return _kind(LEFT_OUT, text) or (("image of another part of the body", word) if word else None)


def doubtful_kind(text: str) -> tuple[str, str] | None:
    """Return what a `plain` text may mean that is no candidate (`TWO_MEANINGS`), and the word; None if nothing."""
    return _kind(TWO_MEANINGS, _unsigned(text))


def has_unknown_words(text: str) -> bool:
    """Return whether a `plain` text has words beside those of sequences: a name, or what software made of an image."""
    words = re.findall(r"[^\W\d_]{3,}\w*", text)
    known = "|".join([*WEIGHTINGS.values(), WITHOUT, EARLIER, UNIFORM, DENOISED, NATIVE, NOT_GIVEN])
    return any(not (_is_known(word) or re.fullmatch(known, word)) for word in words)


def no_magnitude(values: Iterable[str]) -> tuple[str, str] | None:
    """Return as what such values (see `NO_MAGNITUDE`) say that an image is no magnitude, and the first that does."""
    for value in values:
        parts = {*re.split(r"[\W_]+", value.upper())}
        for kind, known in NO_MAGNITUDE.items():
            if parts & known and not parts & IN_PHASE:
                return kind, value
    return None


def other_body(text: str) -> str | None:
    """Return the part of the body other than the head that a `plain` text names, unless it names the head too."""
    return None if quoted(BODY, text) else quoted(OTHER_BODY, text)


@cache
def contrast_said(text: str) -> Contrast | None:
    """Return what a `plain` text says of contrast agent; None if it says nothing."""
    both, native, briefly, after = (quoted(pattern, text) for pattern in (BOTH, NATIVE, PERHAPS_BEFORE, AFTER))
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
        return Contrast(None, f"{before} {given}") if given else Contrast(False, before, agent=bool(mentions))
    if briefly:
        opposite = given or word
        return Contrast(None, f"{briefly} {opposite}") if opposite else Contrast(False, briefly, brief=True)
    if None in told:
        return Contrast(None, next(word for was_given, word in mentions if was_given is None), agent=True, unknown=True)
    if given:
        return Contrast(True, given, agent=bool(mentions) or "+" in given or given.startswith(("t1", "ct1")))
    return letter


def quoted(pattern: str, text: str) -> str | None:
    """Return the first words in a text that match a pattern, without the letters that its wildcards match."""
    return next((word for _, word in _matches(pattern, text)), None)


def _mentions(text: str) -> Iterator[tuple[bool | None, str]]:
    """Yield for each word of an agent whether it was given (None: open), and the word with what is known before it."""
    for match, word in _matches(rf"{AGENT}|{UNCLEAR_AGENT}|(?<=s/ )c|(?<=- )c|(?<=\+- )c", text):
        before, behind = text[: match.start()].rstrip(), text[match.end() :].lstrip()
        before = re.sub(rf"{FILLER}$", "", f" {before}").strip()
        negation = re.search(rf"(?:^| )({WITHOUT}|{EARLIER})$", before)
        last = before.rpartition(" ")[2]
        if negation:
            yield False, f"{negation[1]} {word}"
        elif last and re.fullmatch(AGENT, last):
            continue  # "injection de gadolinium" is one mention
        elif re.match(rf"(?:{NOT_GIVEN})(?: |$)", behind) and not re.match(r"(no|non) [^ ]", behind):
            yield None, word
        elif re.fullmatch(AGENT, match[0]) and (not last or _is_known(last)):
            yield True, f"{last} {word}" if re.fullmatch(LATER, last) else word
        else:
            yield None, word


def _at_the_end(text: str) -> Contrast | None:
    before = re.fullmatch(r"(.*?) ?\bc", text)
    if before is None:
        return None
    last = before[1].rpartition(" ")[2]
    if re.search(rf"(?:^| )({WITHOUT}|{EARLIER})$", before[1]):
        return Contrast(False, f"{last} c", agent=True)
    return Contrast(True, "c", brief=True) if not last or _is_known(last) else Contrast(None, "c", True, unknown=True)


@cache
def _is_known(word: str) -> bool:
    """Return whether a word before an agent's is known to say nothing against it."""
    kinds = (
        WITH, LATER, r"[+;*c]", AGENT, PLANE, TECHNIQUE, BODY, PROCESSED, OTHER_BODY, rf"({TREATED})\w*", _CODE,
    )  # fmt: skip
    if word in ALIASES or any(re.fullmatch(kind, word) for kind in kinds):
        return True
    sequence = re.fullmatch(rf"{PREFIX}(?:t[12]|flair|pd)w?(?P<rest>.*)|(?:mp ?rage|bravo|vibe)(?P<more>.*)", word)
    return sequence is not None and ((rest := sequence["rest"] or sequence["more"] or "") == "" or _is_known(rest))


def _kind(table: Mapping[str, str], text: str) -> tuple[str, str] | None:
    return next(((kind, word) for kind, words in table.items() if (word := quoted(words, text))), None)


def _unglued(text: str) -> str:
    """Return a text with spaces behind weightings that are glued to longer words: ``t1sub``, ``flairmask``."""
    return re.sub(r"\b(t[12](?:ce|gd|[wc])?|flair)(?=[a-z]{3,})", r"\1 ", text)


def _unsigned(text: str) -> str:
    """Return a text without the signs that only matter for contrast agent."""
    return " ".join(word.rstrip("/") for word in text.split() if word not in ("-", "+-"))


_WILDCARD = re.compile(r"\\w\*|\[a-z\]\*")
"""The parts of the words' patterns that match any letters, among which may be names."""


def _matches(pattern: str, text: str) -> Iterator[tuple[re.Match[str], str]]:
    for match in _compiled(pattern).finditer(text):
        start, end = match.span()
        hidden = {k for name in match.groupdict() for k in range(*match.span(name))}
        yield match, "".join(text[k] for k in range(start, end) if k not in hidden)


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    wildcards = count()
    marked = _WILDCARD.sub(lambda wildcard: f"(?P<any{next(wildcards)}>{wildcard.group()})", pattern)
    return re.compile(rf"(?<![^\W_])(?:{marked})(?![^\W_]|\*)")


_SIGNS = {"±": "+-", "−": "-", "§": "s/"}
_LETTERS = str.maketrans({"ø": "o", "ł": "l", "ß": "ss", "æ": "ae", "đ": "d", "ı": "i", "–": "-", "—": "-", "−": "-"})


def _separated(text: str) -> str:
    """Return a text with spaces between Latin and other letters, and before an agent's word glued to another."""
    text = re.sub(r"(?<=[a-z0-9])(?=[^\W\da-z_])|(?<=[^\W\da-z_])(?=[a-z0-9])", " ", text)
    text = re.sub(r"(增[强強]|造影|조영)", r" \1 ", text)
    return re.sub(rf"(?<=[a-z0-9])(?=(?:{GLUED})(?![^\W_]))", " ", text)
