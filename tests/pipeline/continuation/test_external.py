"""Importing models of other makers: transformers' own translations are the judge."""

import json
import logging
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from external_models import SOURCES, published
from hub_server import COMMIT, serve_hub

from pipeline.common.errors import TransientError, UserError
from pipeline.common.files import read_lines, write_lines
from pipeline.continuation import external
from pipeline.translate import translate

LANGUAGES = {
    "marian": (None, None),
    "marian-tags": (None, "deu"),
    "m2m100": ("en", "de"),
    "nllb": ("eng_Latn", "deu_Latn"),
    "mbart": ("en_XX", "de_DE"),
    "mbart50": ("en_XX", "de_DE"),
    "t5": ("en", "de"),
    "t5-gated": (None, "de"),
    "mt5": (None, None),
}
TOKEN = "hf_SecretSecretSecret"


@pytest.fixture(autouse=True)
def one_processor(monkeypatch):
    monkeypatch.setenv("LIMBECK_CPUS", "1")
    monkeypatch.delenv("HF_TOKEN", raising=False)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    from huggingface_hub import constants

    with serve_hub() as server:
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        # Read from the environment when the library is imported.
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        template = "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        yield server


def take(model, output, kind="huggingface", source=None, target=None, **flags):
    given = {"model": model, "type": kind, "source-language": source, "target-language": target, "output-dir": output}
    pairs = [(f"--{key}", str(value)) for key, value in {**given, **flags}.items() if value is not None]
    external.main([part for pair in pairs for part in pair])
    return output


def translated(folder, lines=SOURCES, *flags, options='{"beam-size": 1, "allow-unk": true}'):
    text, output = folder.with_suffix(".in.zst"), folder.with_suffix(".out.zst")
    with write_lines(text) as writer:
        for line in lines:
            writer.write(line)
    files = ["--input", str(text), "--output", str(output)]
    translate.main(["--model", str(folder), *files, "--options", options, *flags])
    return list(read_lines(output))


@torch.no_grad()
def judged(family, beam_size=1):
    """What transformers makes of the sources."""
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    folder = published(family)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    source, target = LANGUAGES[family]
    front = {"marian-tags": ">>deu<< ", "t5": "translate English to German: ", "t5-gated": "<2de> "}.get(family, "")
    forced = {}
    if source and family != "t5":
        tokenizer.src_lang = source
        token = f"__{target}__" if family == "m2m100" else target
        start = "decoder_start_token_id" if family == "mbart" else "forced_bos_token_id"
        forced = {start: tokenizer.convert_tokens_to_ids(token)}
    found = model.generate(
        **tokenizer([front + text for text in SOURCES], return_tensors="pt", padding=True),
        num_beams=beam_size, do_sample=False, max_new_tokens=60, length_penalty=0.0, early_stopping=beam_size > 1,
        **forced,
    )  # fmt: skip
    texts = tokenizer.batch_decode(found, skip_special_tokens=True)
    return [text.removeprefix("__de__").strip() for text in texts]  # to transformers 5 these tokens are not special


@pytest.mark.parametrize("family", LANGUAGES)
def test_every_family_translates_as_transformers_does(family, tmp_path):
    folder = take(published(family), tmp_path / "model", source=LANGUAGES[family][0], target=LANGUAGES[family][1])
    greedy = judged(family)
    assert len(set(greedy)) > len(SOURCES) / 2
    assert translated(folder) == greedy
    searched = translated(folder, options='{"beam-size": 4, "normalize": 0, "allow-unk": true}')
    # Searches end by rules of their own: a few sentences may differ.
    assert sum(map(str.__eq__, searched, judged(family, 4))) >= len(SOURCES) - 2
    about = json.loads((folder / "external.json").read_text())
    assert (about["source-language"], about["target-language"]) == LANGUAGES[family]
    assert about["versions"].keys() == {"ctranslate2", "transformers"}


def test_an_import_ends_by_comparing_with_torch(tmp_path, monkeypatch):
    from ctranslate2.converters import TransformersConverter

    convert = TransformersConverter.convert

    def another_model(self, *arguments, **options):
        convert(self, *arguments, **options)
        with torch.no_grad():
            self.model.lm_head.weight.mul_(1.1)

    monkeypatch.setattr(TransformersConverter, "convert", another_model)
    with pytest.raises(UserError, match="computes something else than the model"):
        take(published("marian"), tmp_path / "model")
    assert not list(tmp_path.iterdir())


def copy_of(family, folder):
    shutil.copytree(published(family), folder)
    return folder


def test_older_weights_are_read_without_running_what_they_hold(tmp_path):
    from safetensors.torch import load_file

    older = copy_of("marian", tmp_path / "older")
    torch.save(load_file(older / "model.safetensors"), older / "pytorch_model.bin")
    (older / "model.safetensors").unlink()
    assert translated(take(older, tmp_path / "model")) == judged("marian")

    class Payload:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "owned"),)

    (older / "pytorch_model.bin").write_bytes(pickle.dumps({"weight": Payload()}))
    with pytest.raises(UserError, match="more than numbers"):
        take(older, tmp_path / "other")
    torch.save({"weight": Payload()}, older / "pytorch_model.bin")
    with pytest.raises(UserError, match="more than numbers"):
        take(older, tmp_path / "other")
    assert not (tmp_path / "owned").exists() and not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("family", "source", "target", "said"),
    [
        ("nllb", "eng_Latn", "deu_latn", r"no language 'deu_latn' \(--target-language\): the nearest are deu_Latn"),
        ("nllb", "de", "eng_Latn", r"no language 'de' \(--source-language\): the nearest are deu_Latn"),
        ("nllb", "eng_Latn", None, "--target-language is needed"),
        ("m2m100", None, "de", "--source-language is needed"),
        ("m2m100", "en", "deu", "the nearest are de"),
        ("mbart50", "en_XX", "de", "the nearest are de_DE"),
        ("marian", None, "deu", "no language tokens, so that the language deu would change nothing"),
        ("marian-tags", None, "nl", "the nearest are nld"),
        ("marian-tags", None, None, "--target-language is needed, one of deu, nld"),
        ("marian-tags", "en", "deu", "--source-language en changes nothing"),
        ("t5", "en", "fr", "no task en_to_fr: it has en_to_de"),
        ("mt5", "en", "de", "would change nothing.*--source-prefix"),
    ],
)
def test_languages_that_a_model_cannot_be_told(family, source, target, said, tmp_path):
    with pytest.raises(UserError, match=said):
        take(published(family), tmp_path / "model", source=source, target=target)
    assert not (tmp_path / "model").exists()


def test_a_model_may_force_its_target_language_by_itself(tmp_path):
    bilingual = copy_of("mbart50", tmp_path / "bilingual")
    settings = json.loads((bilingual / "generation_config.json").read_text())
    vocabulary = json.loads((bilingual / "tokenizer.json").read_text())["added_tokens"]
    number = next(token["id"] for token in vocabulary if token["content"] == "de_DE")
    (bilingual / "generation_config.json").write_text(json.dumps({**settings, "forced_bos_token_id": number}))
    folder = take(bilingual, tmp_path / "model", source="en_XX")
    assert json.loads((folder / "external.json").read_text())["target-prefix"] == ["de_DE"]
    assert translated(folder) == judged("mbart50")


def test_models_that_cannot_be_imported(tmp_path, monkeypatch):
    other = copy_of("marian", tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "model_type": "llama"}))
    with pytest.raises(UserError, match="family 'llama', which cannot be imported: those that can are marian, m2m_100"):
        take(other, tmp_path / "model")
    (other / "config.json").write_text(json.dumps(config))
    (other / "model.safetensors").unlink()
    with pytest.raises(UserError, match="has no weights"):
        take(other, tmp_path / "model")
    two = {**config, "share_encoder_decoder_embeddings": False}
    shutil.copy(published("marian") / "model.safetensors", other)
    (other / "config.json").write_text(json.dumps(two))
    with pytest.raises(UserError, match="one vocabulary for sources and another for translations"):
        take(other, tmp_path / "model")
    with pytest.raises(UserError, match="does not exist: a model is a directory, a URI of one, or an id of the Hub"):
        take(tmp_path / "absent", tmp_path / "model")
    with pytest.raises(UserError, match="is a directory: --revision is for models of the Hugging Face Hub"):
        take(other, tmp_path / "model", revision="main")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match=r"pip install 'limbeck\[huggingface\]'"):
        take(published("marian"), tmp_path / "model")
    assert not (tmp_path / "model").exists()


def without(*names):
    """Take keys out of config.json."""

    def change(folder):
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({key: config[key] for key in config if key not in names}))

    return change


def as_on_the_hub(tokenizer_class):
    """Only SentencePiece's file and the names of special tokens, as older tokenizers were published."""

    def change(folder):
        vocabulary = json.loads((folder / "tokenizer.json").read_text())
        codes = [token["content"] for token in vocabulary["added_tokens"] if "_" in token["content"]]
        (folder / "tokenizer.json").unlink()
        about = {"src_lang": None, "tokenizer_class": tokenizer_class, "additional_special_tokens": codes}
        (folder / "tokenizer_config.json").write_text(json.dumps(about))

    return change


@pytest.mark.parametrize(
    ("family", "change"),
    [
        ("mbart50", without("tokenizer_class", "normalize_before")),
        ("mbart", without("tokenizer_class")),
        ("mbart50", as_on_the_hub("MBart50Tokenizer")),
        ("nllb", as_on_the_hub("NllbTokenizer")),
    ],
)
def test_directories_of_other_versions_of_transformers(family, change, tmp_path):
    older = copy_of(family, tmp_path / "older")
    change(older)
    source, target = LANGUAGES[family]
    assert translated(take(older, tmp_path / "model", source=source, target=target)) == judged(family)


def test_a_multilingual_model_whose_tokenizer_has_no_languages(tmp_path):
    untold = copy_of("nllb", tmp_path / "untold")
    about = {"tokenizer_class": "NllbTokenizer", "additional_special_tokens": []}
    (untold / "tokenizer.json").unlink()
    (untold / "tokenizer_config.json").write_text(json.dumps(about))
    with pytest.raises(UserError, match="no language tokens: its tokenizer files are not whole"):
        take(untold, tmp_path / "model", source="eng_Latn", target="deu_Latn")


# The Hub


def test_the_hub_gives_what_is_needed_of_one_commit_and_the_token_stays_secret(hub, tmp_path):
    """In a process of its own, as a task runs it: the environment decides."""
    private = copy_of("marian-tags", tmp_path / "private")
    for name in ("README.md", "tf_model.h5", "flax_model.msgpack", "pytorch_model.bin", "custom_code.py"):
        (private / name).write_text("not needed")
    hub.folders["owner/teacher"], hub.tokens["owner/teacher"] = private, TOKEN
    command = [
        *(sys.executable, "-m", "pipeline.continuation.external", "--model", "owner/teacher"),
        *("--type", "huggingface", "--target-language", "deu", "--output-dir", str(tmp_path / "model")),
    ]
    home = tmp_path / "home"
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_TOKEN": TOKEN, "HF_DEBUG": "0"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    fetched = {path.rpartition("/")[2] for path, _ in hub.requests if path.startswith("GET /owner")}
    assert fetched == {
        *("config.json", "generation_config.json", "model.safetensors", "source.spm", "target.spm"),
        *("tokenizer_config.json", "vocab.json"),
    }
    assert {path.split("/")[4] for path, _ in hub.requests if path.startswith("GET /owner")} == {COMMIT}
    assert {authorization for path, authorization in hub.requests if "owner/" in path} == {f"Bearer {TOKEN}"}
    about = json.loads((tmp_path / "model" / "external.json").read_text())
    assert about["origin"] == {"model": "owner/teacher", "type": "huggingface", "revision": COMMIT}
    assert translated(tmp_path / "model") == judged("marian-tags")
    written = [path for path in (tmp_path / "model").rglob("*") if path.is_file()]
    assert TOKEN not in done.stdout + done.stderr
    assert not any(TOKEN.encode() in path.read_bytes() for path in written)
    assert (home / "hub" / "models--owner--teacher").is_dir()


def test_weights_in_several_files(hub, tmp_path):
    from transformers import MarianMTModel

    sharded = copy_of("marian", tmp_path / "sharded")
    (sharded / "model.safetensors").unlink()
    MarianMTModel.from_pretrained(published("marian")).save_pretrained(sharded, max_shard_size="60KB")
    assert len(list(sharded.glob("model-*.safetensors"))) > 1
    hub.folders["owner/large"] = sharded
    assert translated(take("owner/large", tmp_path / "model")) == judged("marian")
    (sharded / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../../secret"}}))
    hub.folders["owner/strange"] = sharded
    with pytest.raises(UserError, match=r"'../../secret', which is not a file of weights"):
        take("owner/strange", tmp_path / "other")


def test_the_page_of_a_model_is_its_id(hub, tmp_path):
    hub.folders["owner/teacher"] = published("marian")
    take(f"https://huggingface.co/owner/teacher/tree/{COMMIT}", tmp_path / "model")
    assert json.loads((tmp_path / "model" / "external.json").read_text())["origin"]["revision"] == COMMIT


def test_what_the_hub_refuses(hub, tmp_path, monkeypatch):
    hub.folders.update({"owner/private": published("marian"), "owner/gated": published("marian")})
    hub.tokens["owner/private"] = TOKEN
    hub.gated.add("owner/gated")
    with pytest.raises(UserError, match=r"refuses owner/private \(401\): it needs a token .* HF_TOKEN"):
        take("owner/private", tmp_path / "model")
    with pytest.raises(UserError, match=r"refuses owner/gated \(403\): it needs a token .* its terms accepted"):
        take("owner/gated", tmp_path / "model")
    with pytest.raises(UserError, match="has owner/gated, but no revision v9"):
        take("owner/gated", tmp_path / "model", revision="v9")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with pytest.raises(UserError, match="has no model owner/absent"):
        take("owner/absent", tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_hub_that_cannot_be_reached_may_be_later(hub, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    hub.folders["owner/teacher"] = published("marian")
    hub.down = True
    with pytest.raises(TransientError, match="cannot be read now for owner/teacher"):
        take("owner/teacher", tmp_path / "model")
    hub.down = False
    hub.broken.add("model.safetensors")
    with pytest.raises(TransientError, match="cannot be reached for owner/teacher"):
        take("owner/teacher", tmp_path / "model")
    hub.broken.clear()
    assert not (tmp_path / "model").exists()
    assert translated(take("owner/teacher", tmp_path / "model")) == judged("marian")
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(TransientError, match="cannot be reached for owner/other"):
        take("owner/other", tmp_path / "model")


def test_a_token_that_cannot_be_sent_is_not_shown_either(hub, tmp_path, monkeypatch):
    secret = "hf_sécret\x07"
    monkeypatch.setenv("HF_TOKEN", secret)
    hub.folders["owner/teacher"] = published("marian")
    with pytest.raises(UserError) as raised:
        take("owner/teacher", tmp_path / "model")
    assert secret not in str(raised.value) and "cret" not in str(raised.value)
    assert raised.value.__cause__ is None and raised.value.__suppress_context__


# CTranslate2


def plain(family, tmp_path, keep_tokenizer=True):
    """A directory of CTranslate2 files with a tokenizer beside them, as people publish them."""
    folder = take(published(family), tmp_path / "made", source=LANGUAGES[family][0], target=LANGUAGES[family][1])
    (folder / "external.json").unlink()
    if (folder / "tokenizer").is_dir():
        for file in (folder / "tokenizer").iterdir():
            if keep_tokenizer:
                file.rename(folder / file.name)
        shutil.rmtree(folder / "tokenizer")
    return folder


@pytest.mark.parametrize("family", ["marian", "marian-tags", "m2m100", "nllb", "t5-gated", "mbart50"])
def test_ctranslate2_directories_translate_as_what_they_were_made_of(family, tmp_path):
    source, target = LANGUAGES[family]
    folder = take(plain(family, tmp_path), tmp_path / "model", "ctranslate2", source=source, target=target)
    assert translated(folder) == judged(family)


def test_a_ctranslate2_model_of_a_web_server(web, tmp_path):
    for file in plain("marian-tags", tmp_path).iterdir():
        web.put(f"/models/mine/{file.name}?key={TOKEN}", file.read_bytes())
    folder = take(f"{web.url}/models/mine?key={TOKEN}", tmp_path / "model", "ctranslate2", target="deu")
    assert translated(folder) == judged("marian-tags")
    assert TOKEN not in (folder / "external.json").read_text()
    with pytest.raises(UserError, match=r"other has neither config.json nor model.bin"):
        take(f"{web.url}/models/other", tmp_path / "none", "ctranslate2")


def test_a_huggingface_model_of_a_web_server(web, tmp_path):
    for file in published("nllb").iterdir():
        web.put(f"/nllb/{file.name}", file.read_bytes())
    folder = take(f"{web.url}/nllb", tmp_path / "model", source="eng_Latn", target="deu_Latn")
    assert translated(folder) == judged("nllb")


def test_ctranslate2_directories_that_are_not_whole(tmp_path):
    folder = plain("nllb", tmp_path, keep_tokenizer=False)
    given = {"kind": "ctranslate2", "source": "eng_Latn", "target": "deu_Latn"}
    with pytest.raises(UserError, match=r"has no tokenizer: source.spm and target.spm, or the files of a Hugging Face"):
        take(folder, tmp_path / "model", **given)
    for name in ("source.spm", "target.spm"):
        shutil.copy(published("marian") / "source.spm", folder / name)
    pieces = [f"other{number}" for number in range(352)]
    listed = folder / "shared_vocabulary.json"
    listed.write_text(json.dumps([*pieces, "eng_Latn", "deu_Latn"]))
    with pytest.raises(UserError, match="it is another model's tokenizer"):
        take(folder, tmp_path / "model", **given)
    listed.unlink()
    with pytest.raises(UserError, match=r"no source_vocabulary.json and no shared_vocabulary.json"):
        take(folder, tmp_path / "model", **given)
    (folder / "model.bin").unlink()
    with pytest.raises(UserError, match=r"has no model.bin: it is not a CTranslate2 model"):
        take(folder, tmp_path / "model", **given)
    assert not (tmp_path / "model").exists()


def test_the_log_says_what_a_source_becomes(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        take(published("nllb"), tmp_path / "model", source="eng_Latn", target="deu_Latn")
    assert "sources are eng_Latn … </s>, translations begin with deu_Latn" in caplog.text


def test_an_import_replaces_an_older_one_only_when_it_is_whole(tmp_path):
    folder = take(published("marian"), tmp_path / "model")
    before = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
    with pytest.raises(UserError):
        take(published("marian-tags"), folder, target="xxx")
    assert {path.name: path.read_bytes() for path in Path(folder).iterdir()} == before
    take(published("nllb"), folder, source="eng_Latn", target="deu_Latn")
    assert translated(folder) == judged("nllb")
    assert not (folder / "source.spm").exists()
