"""Corpus scores by sacreBLEU, with the signatures that make them comparable."""

import re
from collections.abc import Sequence
from typing import TypedDict

from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.metrics.ter import TER

from pipeline.common.words import split_words

# Written without spaces between words, so that words can be neither matched (BLEU) nor counted (speed) by spaces.
UNSPACED_LANGUAGES = frozenset({"zh", "yue", "ja", "th", "lo", "km", "my", "bo", "dz"})
_CHINESE = frozenset({"zh", "yue"})
_SPLIT_BY_TERCOM = frozenset({"zh", "yue", "ja"})


class Score(TypedDict):
    """A corpus score (0 to 100, the best; of TER 0 is the best) and sacreBLEU's signature of how it was computed."""

    score: float
    signature: str


def chrf(hypotheses: Sequence[str], references: Sequence[str]) -> Score:
    """Corpus chrF2 (character n-grams up to 6, recall weighs twice as much as precision).

    Source: Popović, "chrF: character n-gram F-score for automatic MT evaluation", 2015.
    """
    return _corpus_score(CHRF(), hypotheses, references)


def bleu(hypotheses: Sequence[str], references: Sequence[str], language: str) -> Score:
    """Corpus BLEU on detokenised text, split into words as suits the target language."""
    return _corpus_score(bleu_metric(language), hypotheses, references)


def ter(hypotheses: Sequence[str], references: Sequence[str], language: str) -> Score | None:
    """Corpus TER: edits (shifts of phrases among them) per 100 words of the reference; lower is better, may pass 100.

    None for a language without spaces that tercom's tokenizer cannot split, such as Thai.
    """
    base = base_language(language)
    if base in UNSPACED_LANGUAGES - _SPLIT_BY_TERCOM:
        return None
    split = base in _SPLIT_BY_TERCOM
    return _corpus_score(TER(normalized=split, asian_support=split), hypotheses, references)


def bleu_metric(language: str) -> BLEU:
    """sacreBLEU's BLEU for text of a language."""
    return BLEU(tokenize=bleu_tokenizer(language))


def _corpus_score(metric: BLEU | CHRF | TER, hypotheses: Sequence[str], references: Sequence[str]) -> Score:
    result = metric.corpus_score(list(hypotheses), [list(references)])
    return Score(score=round(result.score, 4), signature=metric.get_signature().format())


def bleu_tokenizer(language: str) -> str:
    """The name of sacreBLEU's tokenizer for a language.

    sacreBLEU's own choices for Japanese and Korean need MeCab and its dictionaries, and a score must not depend on what
    happens to be installed: Japanese is split into characters, Korean at its spaces.
    """
    base = base_language(language)
    if base in _CHINESE:
        return "zh"
    return "char" if base in UNSPACED_LANGUAGES else "13a"


def count_words(sentences: Sequence[str], language: str) -> int:
    """Number of words between spaces; of characters and such, where a language has no spaces between words."""
    if base_language(language) in UNSPACED_LANGUAGES:
        return sum(len(split_words(sentence)) for sentence in sentences)
    return sum(len(sentence.split()) for sentence in sentences)


def base_language(language: str) -> str:
    """The language of a tag without script and region: `pt` of `pt-BR`, `zh` of `zh_Hant`."""
    return re.split("[-_]", language.lower())[0]
