"""Import a translation model of another maker, as a teacher or a backward model.

`--type huggingface` takes a model of the Hugging Face Hub, or a directory like one: Marian (OPUS-MT), M2M-100, NLLB,
mBART, mBART-50, T5 (also mT5, UMT5, MADLAD). `--type ctranslate2` takes a directory with CTranslate2's model.bin and
the tokenizer's files: source.spm and target.spm, or a Hugging Face tokenizer. The output is one self-contained folder
for pipeline.translate and pipeline.evaluate.

CTranslate2's own converter does the work. Five things of it do not fit transformers 5, and are mended here: it looks
for language tokens where they no longer are (M2M-100), takes a missing `normalize_before` for an error (mBART), takes
mBART-50 for mBART when the config does not name the tokenizer, writes an absent beginning of sentence that its runtime
then cannot read (mBART-50), and scales the outputs of models that transformers does not (T5 1.1, mT5, MADLAD). Every
conversion ends with a comparison: the log-probabilities of a few translations are those that torch gives them.
"""

import argparse
import importlib.metadata
import logging
import pickle
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ctranslate2
import torch

from pipeline.common.command import run_command
from pipeline.common.errors import UserError
from pipeline.common.files import read_json, write_json
from pipeline.continuation.external_files import TOKENIZER_FILES, VOCABULARY_FILES, Found, obtain, weights
from pipeline.continuation.external_languages import TOKENS, Languages, codes_of, language_tokens
from pipeline.model import external
from pipeline.model.decoding import DecodingOptions
from pipeline.model.external import INSTALL, SENTENCEPIECE_FILES, TOKENIZER_FOLDER, Description
from pipeline.model.formats.directory import whole_directory

logger = logging.getLogger(__name__)

EXAMPLE = """example:
  python -m pipeline.continuation.external --model facebook/nllb-200-distilled-600M --type huggingface \\
    --source-language rus_Cyrl --target-language eng_Latn --output-dir teacher
"""

# The families that a Hugging Face model_type may be.
_FAMILIES = {
    "marian": ("marian",),
    "m2m_100": ("nllb", "m2m100"),
    "mbart": ("mbart",),
    "t5": ("t5",),
    "mt5": ("t5",),
    "umt5": ("t5",),
}
_PROBES = ("This is a short sentence.", "1984, 25 % and other numbers: how are they translated?")
_TOLERANCE = 1e-2  # of a translation's log-probability, per token


def import_model(model: str, kind: str, revision: str | None, languages: Languages, output_dir: Path) -> None:
    """Write the folder of a model. Raises UserError when it cannot be had, computed, or told its languages, and
    TransientError when it cannot be had now."""
    output_dir.parent.mkdir(parents=True, exist_ok=True)
    # Beside the output: models are large, and the system's folder for temporary files may be small.
    with tempfile.TemporaryDirectory(prefix=".external-", dir=output_dir.parent) as temporary:
        (download := Path(temporary) / "download").mkdir()
        found = obtain(model, kind, revision, download)
        with whole_directory(output_dir) as folder:
            make = _from_huggingface if kind == "huggingface" else _from_ctranslate2
            description = make(found, languages, folder)
            write_json(folder / external.FILE, description.to_json())
            if kind == "ctranslate2":
                _check_it_translates(folder)
            _clear(output_dir)
    size = sum(file.stat().st_size for file in output_dir.rglob("*") if file.is_file())
    logger.info(f"{output_dir}: {description.family}, {size / 1e6:,.1f} MB; sources are {_sketch(description)}")


def _clear(folder: Path) -> None:
    """Take away an older import, of which files would remain that the new one does not have."""
    if external.is_external(folder):
        for file in ("model.bin", "config.json", *VOCABULARY_FILES, *SENTENCEPIECE_FILES, external.FILE):
            (folder / file).unlink(missing_ok=True)
        shutil.rmtree(folder / TOKENIZER_FOLDER, ignore_errors=True)


def _sketch(description: Description) -> str:
    words = [description.source_prefix] if description.source_prefix else []
    source = " ".join([*description.source_front, *words, "…", *description.source_back])
    return source + (
        f", translations begin with {' '.join(description.target_prefix)}" * bool(description.target_prefix)
    )


# Hugging Face


def _from_huggingface(found: Found, languages: Languages, folder: Path) -> Description:
    try:
        import transformers
    except ImportError as error:
        raise UserError(f"models of Hugging Face need Transformers: {INSTALL}") from error
    transformers.utils.logging.disable_progress_bar()
    config = _read_config(found)
    families = _FAMILIES[config["model_type"]]
    tokenizer = external.load_tokenizer(found.folder)
    if getattr(tokenizer, "separate_vocabs", False) or config.get("share_encoder_decoder_embeddings") is False:
        raise UserError(
            f"{found.origin['model']} has one vocabulary for sources and another for translations, and CTranslate2's "
            "converter reads Marian models with one: convert it from Marian's own files and give --type ctranslate2"
        )
    converter = _converter(found.folder)
    try:
        converter.convert(str(folder), quantization="float32", force=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"the weights of {found.origin['model']} hold more than numbers, and would be run as a program to be read: "
            "model.safetensors is needed"
        ) from error
    except (ValueError, NotImplementedError, KeyError, AttributeError, RuntimeError, OSError) as error:
        raise UserError(
            f"CTranslate2 {ctranslate2.__version__} cannot convert {found.origin['model']} (read with transformers "
            f"{transformers.__version__}): {error}"
        ) from error
    pieces = external.read_pieces(folder, "source")
    family = next((family for family in families if codes_of(family, pieces)), families[-1])
    tokens = _tokens(found, family, tokenizer, pieces, languages, config, _forced(converter, pieces, languages))
    if config["model_type"] == "marian":
        for name in SENTENCEPIECE_FILES:
            shutil.copyfile(found.folder / name, folder / name)
    else:
        tokenizer.save_pretrained(str(folder / TOKENIZER_FOLDER))
    description = Description(
        family=family,
        tokenizer="sentencepiece" if config["model_type"] == "marian" else "huggingface",
        longest=getattr(converter.model.config, "max_position_embeddings", None),
        **tokens,
        **_provenance(found, "transformers"),
    )
    write_json(folder / external.FILE, description.to_json())
    _compare(folder, description, converter.model, pieces)
    return description


def _read_config(found: Found) -> dict[str, Any]:
    config: dict[str, Any] = read_json(found.folder / "config.json")
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind not in _FAMILIES:
        raise UserError(
            f"{found.origin['model']} is a model of the family {kind!r}, which cannot be imported: those that can are "
            f"{', '.join(_FAMILIES)} (Marian, M2M-100 and NLLB, mBART, T5)"
        )
    if not weights([path.name for path in found.folder.iterdir()]):
        raise UserError(f"{found.origin['model']} has no weights: model.safetensors or pytorch_model.bin is needed")
    return config


def _converter(folder: Path) -> Any:
    from ctranslate2.converters import TransformersConverter

    class Converter(TransformersConverter):  # type: ignore[misc]
        """CTranslate2's, with the model kept for the comparison."""

        def load_model(self, model_class: Any, path: str, **options: Any) -> Any:
            self.model = (
                super()
                .load_model(
                    model_class, path, **{**options, "dtype": torch.float32}, local_files_only=True, weights_only=True
                )
                .eval()
            )
            config = self.model.config
            if not hasattr(config, "normalize_before"):
                config.normalize_before = True  # what all mBART models have, and transformers 5 assumes
            if config.model_type == "mbart":  # how the converter tells mBART-50 from mBART
                config.tokenizer_class = "MBartTokenizer" if _starts_from_language(config) else "MBart50Tokenizer"
            if config.model_type in ("t5", "mt5"):  # whether the outputs are scaled, to the converter
                config.tie_word_embeddings = getattr(config, "scale_decoder_outputs", False)
            return self.model

        def load_tokenizer(self, tokenizer_class: Any, path: str, **options: Any) -> Any:
            return _NumberedTokens(external.load_tokenizer(Path(path)), self.model.config.vocab_size)

    return Converter(str(folder))


def _starts_from_language(config: Any) -> bool:
    """Whether translations are begun by their language's token alone, as in mBART; mBART-50 has one before it."""
    return bool(config.model_type == "mbart" and config.decoder_start_token_id != config.eos_token_id)


class _NumberedTokens:
    """A tokenizer as the converter wants it: every row of the model's embeddings with the token it belongs to."""

    num_madeup_words = 0

    def __init__(self, tokenizer: Any, rows: int) -> None:
        self._tokenizer = tokenizer
        self.special_tokens_map: dict[str, Any] = {}
        self._numbers: dict[str, int] = {}
        for number in range(rows):
            token = tokenizer.convert_ids_to_tokens(number)
            used = token is None or token == "" or token in self._numbers
            self._numbers[f"madeupword{number}" if used else token] = number
        self.bos_token = tokenizer.bos_token or "<s>"

    def get_vocab(self) -> dict[str, int]:
        return self._numbers

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)


def _forced(converter: Any, pieces: Sequence[str], languages: Languages) -> list[str]:
    """The token that the model's own settings force translations to begin with, if no language is given for that."""
    number = getattr(converter.model.generation_config, "forced_bos_token_id", None)
    return [pieces[number]] if number is not None and not languages.target else []


def _tokens(
    found: Found,
    family: str,
    tokenizer: Any,
    pieces: Sequence[str],
    languages: Languages,
    config: dict[str, Any],
    forced: list[str],
) -> dict[str, Any]:
    """What a Hugging Face tokenizer puts around the pieces of a source, and what its translations begin with."""
    name = found.origin["model"]
    front, prefix, words = language_tokens(name, family, pieces, languages, forced, config)
    if family in ("m2m100", "nllb", "mbart"):
        tokenizer.src_lang = languages.source
    plain = tokenizer(_PROBES[0], add_special_tokens=False)["input_ids"]
    whole = tokenizer(_PROBES[0])["input_ids"]
    start = next((at for at in range(len(whole)) if whole[at : at + len(plain)] == plain), None)
    if start is None:
        raise UserError(f"the tokenizer of {name} changes a text's pieces when it adds its own tokens: not supported")
    before, after = whole[:start], whole[start + len(plain) :]
    return {
        "source_front": [*tokenizer.convert_ids_to_tokens(before), *front],
        "source_back": tokenizer.convert_ids_to_tokens(after),
        "source_prefix": words,
        "target_prefix": prefix,
        "source_language": languages.source,
        "target_language": languages.target,
    }


# CTranslate2


def _from_ctranslate2(found: Found, languages: Languages, folder: Path) -> Description:
    name = found.origin["model"]
    here = {path.name for path in found.folder.iterdir()}
    if "model.bin" not in here:
        raise UserError(f"{name} has no model.bin: it is not a CTranslate2 model")
    for file in sorted(here & {"model.bin", "config.json", *VOCABULARY_FILES}):
        shutil.copyfile(found.folder / file, folder / file)
    pieces = external.read_pieces(folder, "source")
    config = read_json(folder / "config.json") if "config.json" in here else {}
    family = next((family for family in TOKENS if codes_of(family, pieces)), "ctranslate2")
    if set(SENTENCEPIECE_FILES) <= here:
        tokenizer: external.Tokenizer
        for file in SENTENCEPIECE_FILES:
            shutil.copyfile(found.folder / file, folder / file)
        tokenizer = external.SentencePieceTokenizer(folder)
        tokens = _tokens_around_sentencepiece(name, family, pieces, languages, config)
    elif here & {"tokenizer.json", "tokenizer_config.json"}:
        with tempfile.TemporaryDirectory(prefix="tokenizer-") as alone:  # config.json is CTranslate2's, no tokenizer's
            for file in sorted(here & set(TOKENIZER_FILES)):
                shutil.copyfile(found.folder / file, Path(alone) / file)
            loaded = external.load_tokenizer(Path(alone))
            loaded.save_pretrained(str(folder / TOKENIZER_FOLDER))
        tokens = _tokens(found, family, loaded, pieces, languages, {}, [])
        tokenizer = external.HuggingFaceTokenizer(folder / TOKENIZER_FOLDER)
    else:
        raise UserError(
            f"{name} has no tokenizer: source.spm and target.spm, or the files of a Hugging Face tokenizer "
            "(tokenizer.json, tokenizer_config.json …) must lie beside model.bin"
        )
    known = set(pieces)
    probed = [piece for row in tokenizer.pieces(_PROBES) for piece in row]
    if 2 * sum(piece in known for piece in probed) < len(probed):
        raise UserError(
            f"the tokenizer of {name} makes pieces such as {probed[:5]}, most of which the model's vocabulary of "
            f"{len(pieces)} does not have: it is another model's tokenizer"
        )
    if config.get("add_source_eos"):
        tokens["source_back"] = [token for token in tokens["source_back"] if token != config.get("eos_token", "</s>")]
    return Description(
        family=family,
        tokenizer="sentencepiece" if set(SENTENCEPIECE_FILES) <= here else "huggingface",
        **tokens,
        **_provenance(found),
    )


def _tokens_around_sentencepiece(
    name: str, family: str, pieces: Sequence[str], languages: Languages, config: dict[str, Any]
) -> dict[str, Any]:
    """Models that start translations from the end of sentence (Marian, fairseq) have read it behind sources too."""
    eos = config.get("eos_token", "</s>")
    ends = [eos] if config.get("decoder_start_token", "<s>") == eos else []
    front, prefix, words = language_tokens(name, family, pieces, languages, [], {})
    source = codes_of(family, pieces).get(languages.source or "")
    before = [source] if source and family in ("m2m100", "nllb") else []
    after = [*ends, source] if source and family == "mbart" else ends
    return {
        "source_front": [*before, *front],
        "source_back": after,
        "source_prefix": words,
        "target_prefix": prefix,
        "source_language": languages.source,
        "target_language": languages.target,
    }


# Judging the result


def _provenance(found: Found, *packages: str) -> dict[str, Any]:
    versions = {package: importlib.metadata.version(package) for package in ("ctranslate2", *packages)}
    return {"origin": found.origin, "versions": versions}


def _check_it_translates(folder: Path) -> None:
    """Load the model as a translator: other models of CTranslate2 (language models, Whisper) are none."""
    model = external.load(folder, DecodingOptions(beam_size=1), device="cpu", threads=1)
    model.submit(model.encode(_PROBES))()


def _compare(folder: Path, description: Description, torch_model: Any, pieces: Sequence[str]) -> None:
    """Raise UserError when CTranslate2's translations do not have the log-probabilities that torch gives them."""
    options = DecodingOptions(beam_size=1, normalize=0.0, max_length_factor=0.5, allow_unk=True)
    model = external.load(folder, options, device="cpu", threads=1)
    ids = {piece: number for number, piece in enumerate(pieces)}
    around = [[ids[token] for token in tokens] for tokens in (description.source_front, description.source_back)]
    prefix = [ids[token] for token in description.target_prefix]
    eos = torch_model.config.eos_token_id
    start = [] if _starts_from_language(torch_model.config) else [torch_model.config.decoder_start_token_id]
    sources = model.encode(_PROBES)
    for source, (found,) in zip(sources, model.submit(sources)(), strict=True):
        target = [*start, *prefix, *found.ids]
        with torch.no_grad():
            logits = torch_model(
                input_ids=torch.tensor([[*around[0], *source, *around[1]]]), decoder_input_ids=torch.tensor([target])
            ).logits[0]
        places = range(len(start) + len(prefix), len(target) + 1)
        following = [*target[len(start) + len(prefix) :], eos]
        log_probs = logits.log_softmax(-1)
        each = [float(log_probs[place - 1, token]) for place, token in zip(places, following, strict=True)]
        # A translation that was cut at its longest has no end of sentence, and the score is without it.
        difference = min(abs(sum(each) - found.score), abs(sum(each[:-1]) - found.score)) / len(each)
        if not difference < _TOLERANCE:
            raise UserError(
                f"the conversion of {description.origin['model']} computes something else than the model: "
                f"log-probabilities differ by {difference:.3g} per token"
            )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="id of the Hugging Face Hub, a directory, or a URI of one")
    parser.add_argument("--type", choices=("huggingface", "ctranslate2"), required=True, help="what the model is")
    parser.add_argument("--revision", help="branch, tag or commit on the Hub (default: main)")
    parser.add_argument("--source-language", help="code of the source language, as the model spells it")
    parser.add_argument("--target-language", help="code of the target language, as the model spells it")
    parser.add_argument("--output-dir", type=Path, required=True, help="folder to write")
    args = parser.parse_args(arguments)
    languages = Languages(args.source_language or None, args.target_language or None)
    import_model(args.model, args.type, args.revision or None, languages, args.output_dir)


if __name__ == "__main__":
    run_command(main)
