"""Exports in the engine that the browser has: it computes what torch computes, in float32 and in eight bits."""

import random
import re

import pytest
import sacrebleu
import torch
from architectures import ARCHITECTURES
from browser_engine import Job, translate_in_chromium, translate_in_node
from small_student import RECURRENT, small_pairs, small_student
from tiny_model import tiny_model, tiny_vocab, toy_pairs, vocab_bytes

from pipeline.align import shortlist as align_shortlist
from pipeline.common.corpus import write_columns
from pipeline.export import browser
from pipeline.model import parity, search
from pipeline.model.browser_engine import BrowserEngine, ModelFiles
from pipeline.model.calibration import calibrate
from pipeline.model.formats import bergamot, lexicon, npz
from pipeline.model.inference import InferenceModel
from pipeline.model.quantization import Quantization, QuantizedTransformer
from pipeline.model.vocab import Vocab, one_line
from pipeline.vocab.build import train

TEST = 24  # sentences
FLOAT32 = {"gemm-precision": "float32"}
POST_NORM = {name: changes for name, changes in ARCHITECTURES.items() if "pre-norm" not in name} | {
    "more-normalisation": {
        "transformer_ffn_activation": "gelu",
        "transformer_postprocess_emb": "n",
        "transformer_postprocess_top": "n",
    },
    "two-untied": {"dim_vocabs": (400, 296), "tied_embeddings_all": False, **RECURRENT},
}

WITH_SHORTLIST = ("usual", "two-vocabularies", "untied")


@pytest.fixture(scope="module")
def vocabs(tmp_path_factory):
    """A vocabulary of both toy languages, and one of the target alone."""
    folder = tmp_path_factory.mktemp("vocabularies")
    (folder / "vocab.spm").write_bytes(vocab_bytes())
    (folder / "target.spm").write_bytes(train((pair[1] for pair in toy_pairs(1500)), 296, "nmt_nfkc", ()))
    return folder / "vocab.spm", folder / "target.spm"


def simulated(path):
    """A model that was written in eight bits, in the arithmetic of WebAssembly."""
    quantization = Quantization("browser", saturation=True, alphas=bergamot.load_alphas(path))
    return QuantizedTransformer.of(bergamot.load(path), quantization)


def torch_translations(model, sources, vocab, entries=None, shared=True):
    """Greedy translations; with a shortlist each sentence among its own candidates."""
    ready = InferenceModel(model)
    batches = [[source] for source in sources] if entries else [sources]
    texts = []
    for batch in batches:
        ids, mask = parity.padded(batch)
        candidates = entries.candidates(ids, len(vocab), shared) if entries else None
        found = search.beam_search([ready], ids, mask, 1, candidates=candidates)
        texts += vocab.decode([hypotheses[0].ids for hypotheses in found])
    return texts


def random_shortlist(src_size, trg_size):
    maker = random.Random(1)
    lists = [sorted(maker.sample(range(trg_size), 6)) for _ in range(src_size)]
    offsets = torch.arange(src_size + 1).mul(6).numpy().astype("<u8")
    return lexicon.Lexicon(offsets, torch.tensor(lists).flatten().numpy().astype("<u4"), first=50, best=6)


def test_every_architecture_is_computed_alike(tmp_path, vocabs, monkeypatch):
    # Random models hardly ever end a translation: both have to cut it at the same length.
    monkeypatch.setattr(search, "LENGTH_SLACK", 0)
    sentences = [source for source, _ in small_pairs(3, seed=9)]
    jobs, expected = [], []
    for name, changes in POST_NORM.items():
        model = tiny_model(**changes)
        sizes = model.config.dim_vocabs
        files = [vocabs[0]] if sizes[0] == sizes[1] else list(vocabs)
        src_vocab, trg_vocab = Vocab.load(files[0]), Vocab.load(files[-1])
        sources = src_vocab.encode(sentences, add_eos=False)
        exact, rounded, lex = tmp_path / f"{name}.bin", tmp_path / f"{name}.int8.bin", tmp_path / f"{name}.lex.bin"
        bergamot.save(model, exact)
        jobs.append(Job(exact, files, sentences, options=FLOAT32))
        expected.append((f"{name} float32", torch_translations(model, sources, trg_vocab)))
        bergamot.save(model, rounded, calibrate(model, sources))
        jobs.append(Job(rounded, files, sentences))
        expected.append((f"{name} int8", torch_translations(simulated(rounded), sources, trg_vocab)))
        if name in WITH_SHORTLIST:
            entries = random_shortlist(*sizes)
            lexicon.write(entries, lex)
            jobs.append(Job(exact, files, sentences, lex, options=FLOAT32))
            listed = torch_translations(model, sources, trg_vocab, entries, len(files) == 1)
            expected.append((f"{name} shortlist", listed))
    found = translate_in_node(*jobs)
    for (name, ours), theirs in zip(expected, found, strict=True):
        assert len(set(ours)) > 1, name
        assert list(map(one_line, theirs)) == ours, name


@pytest.fixture(scope="module", params=[{}, RECURRENT], ids=["self-attention", "ssru"])
def student(request, tmp_path_factory, vocabs):
    """A trained student, its export for the browser, and its float32 file."""
    folder = tmp_path_factory.mktemp("student")
    model = small_student(**request.param)
    npz.save(model, folder / "model.npz")
    bergamot.save(model, folder / "float32.bin")
    pairs = small_pairs(TEST, seed=9)
    for name, some in (("corpus", small_pairs(800, seed=2)), ("dev", small_pairs(40, seed=3)), ("test", pairs)):
        with write_columns(folder / f"{name}.en", folder / f"{name}.de") as file:
            for pair in some:
                file.write(*pair)
    vocab = ["--src-vocab", str(vocabs[0]), "--trg-vocab", str(vocabs[0])]
    corpus = ["--corpus-src", str(folder / "corpus.en"), "--corpus-trg", str(folder / "corpus.de")]
    align_shortlist.main([*corpus, *vocab, "--output", str(folder / "lex.s2t.pruned.zst")])
    given = ["--model", str(folder / "model.npz"), "--shortlist", str(folder / "lex.s2t.pruned.zst")]
    given += ["--sample", str(folder / "dev.en"), str(folder / "dev.de"), "--shortlist-best", "8"]
    browser.main([*given, *vocab, "--src", "en", "--trg", "de", "--output-dir", str(folder / "browser")])
    return folder


def jobs_of(folder):
    """The float32 model and the export, each without and with the shortlist."""
    exported = folder / "browser"
    lex = exported / "lex.50.8.ende.s2t.bin"
    sentences = [source for source, _ in small_pairs(TEST, seed=9)]
    given = {"vocabs": [exported / "vocab.ende.spm"], "sentences": sentences}
    int8 = exported / "model.ende.intgemm.alphas.bin"
    return [
        Job(folder / "float32.bin", **given, options=FLOAT32),
        Job(folder / "float32.bin", **given, shortlist=lex, options=FLOAT32),
        Job(int8, **given),
        Job(int8, **given, shortlist=lex),
    ]


def chrf(translations):
    return sacrebleu.corpus_chrf(translations, [[target for _, target in small_pairs(TEST, seed=9)]]).score


def test_a_student_translates_in_node_as_in_torch(student):
    jobs = jobs_of(student)
    model, rounded = npz.load(student / "model.npz"), simulated(jobs[2].model)
    vocab, entries = tiny_vocab(), lexicon.read(jobs[1].shortlist)
    sources = vocab.encode(jobs[0].sentences, add_eos=False)
    plain, listed, int8, int8_listed = translate_in_node(*jobs)
    ours = torch_translations(model, sources, vocab)
    assert chrf(ours) > 80  # a student that means something
    assert plain == ours
    assert listed == torch_translations(model, sources, vocab, entries)
    for found, exact, candidates in ((int8, plain, None), (int8_listed, listed, entries)):
        expected = torch_translations(rounded, sources, vocab, candidates)
        assert abs(chrf(found) - chrf(expected)) <= 1
        # Where an activation stands on the border of two whole numbers, the last bit of a sum decides.
        assert sum(one == two for one, two in zip(found, expected, strict=True)) >= len(found) - 2
        # A student of 64 dimensions that learned for seconds loses more than those that are used.
        assert chrf(exact) - chrf(found) <= 3


def test_the_engine_keeps_tags(student):
    """Its own alignment puts them around the translations of what they were around."""
    first, second = (source for source, _ in small_pairs(2, seed=9))
    word, rest = second.split(" ", 1)
    kept = "<code>x &lt; y</code>"
    with BrowserEngine(ModelFiles.of_export(student / "browser")) as engine:
        one, two = (engine.translate([text])[0] for text in (first, second))
        sources = [
            f"<b>{first}</b>",
            f'<p class="a"><a href="/?a=1&amp;b=2"><i>{first}</i></a></p>',
            f"{first}<br/>{second}",
            f"{first} {kept}",
            f"<!-- {first} -->{second}",
            f"<u>{word}</u> {rest}",
        ]
        *whole, within = (engine.translate([source], html=True)[0] for source in sources)
    assert whole == [
        f"<b>{one}</b>",
        f'<p class="a"><a href="/?a=1&amp;b=2"><i>{one}</i></a></p>',
        f"{one}<br>{two}",
        f"{one} {kept}",
        f"<!-- {first} -->{two}",
    ]
    assert re.sub("</?u>", "", within) == two
    assert re.fullmatch(r"[^<]*<u>[^<>]+</u>[^<]*", within)


def test_chromium_translates_as_node_does(student):
    jobs = jobs_of(student)
    assert translate_in_chromium(*jobs) == translate_in_node(*jobs)
