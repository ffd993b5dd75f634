"""Corpus scores by sacreBLEU, with the signatures that make them comparable."""

import re
from collections.abc import Sequence
from typing import TypedDict

from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from pipeline.common.words import split_words

# Written without spaces between words, so that words can be neither matched (BLEU) nor counted (speed) by spaces.
UNSPACED_LANGUAGES = frozenset({"zh", "yue", "ja", "th", "lo", "km", "my", "bo", "dz"})
_CHINESE = frozenset({"zh", "yue"})


class Score(TypedDict):
    """A corpus score (0 to 100) and sacreBLEU's signature of how it was computed."""

    score: float
    signature: str


def chrf(hypotheses: Sequence[str], references: Sequence[str]) -> Score:
    """Corpus chrF2 (character n-grams up to 6, recall weighs twice as much as precision).

    Source: Popović, "chrF: character n-gram F-score for automatic MT evaluation", 2015.
    """
    metric = CHRF()
    result = metric.corpus_score(list(hypotheses), [list(references)])
    return Score(score=round(result.score, 4), signature=metric.get_signature().format())


def bleu(hypotheses: Sequence[str], references: Sequence[str], language: str) -> Score:
    """Corpus BLEU on detokenised text, split into words as suits the target language."""
    metric = BLEU(tokenize=bleu_tokenizer(language))
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
