"""Wrong configs are answered with everything that is wrong, where, and what would be right."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from limbeck_taskgraph.config_file import ConfigError, load_training_config, parse_training_config

WRONG = """\
experiment:
  name: demo
  src: en
  trg: deutsch
  spm-vocabsize: 100
  spm-vocab-size: 1001
  teacher-ensemble: zero
  best-model: crf
datasets:
  train: {one: gettext_x}
  devtest: gettext_x
  test: [foo]
marian-args:
  training-teacher: {learn-rate: {}}
  traning-student: {}
"""


def test_all_errors_come_at_once_with_line_key_finding_and_nearest_key() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_training_config(WRONG, "my.yml")
    lines = str(caught.value).splitlines()
    assert len(lines) == 10
    assert lines[0].startswith("my.yml:4: experiment.trg: found 'deutsch'; needed: a locale")
    assert lines[1].startswith("my.yml:5: experiment.spm-vocabsize: unknown key (did you mean spm-vocab-size?)")
    assert lines[2] == "my.yml:6: experiment.spm-vocab-size: found 1001; needed: a multiple of 8, such as 1000 or 1008"
    assert "found 'zero'; needed: a whole number" in lines[3]
    assert lines[4].endswith("found 'crf'; allowed: chrf, ce-mean-words, bleu-detok (did you mean chrf?)")
    assert lines[5] == "my.yml:10: datasets.train: found {'one': 'gettext_x'}; needed: a list"
    assert lines[6] == "my.yml:11: datasets.devtest: found 'gettext_x'; needed: a list"
    assert "datasets.test.0: found 'foo'; needed: importer_name" in lines[7]
    assert "marian-args.training-teacher.learn-rate" in lines[8]
    assert "did you mean training-student?" in lines[9]


def test_missing_keys_are_named_with_what_they_hold() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_training_config("experiment: {name: x, src: en}\n")
    assert "experiment.trg: missing; target language" in str(caught.value)
    assert "datasets: missing; a mapping with the keys train, devtest" in str(caught.value)


def test_a_key_that_stands_twice_is_an_error() -> None:
    text = "experiment: {name: a, src: en, trg: de}\ndatasets: {train: [x_a], devtest: [x_b]}\nexperiment: {}\n"
    with pytest.raises(ConfigError, match="experiment: the key stands twice; the first is on line 1"):
        parse_training_config(text)


@pytest.mark.parametrize("text", ["", "- a", "experiment: [", "a: b: c", "\tx: 1"])
def test_what_is_no_mapping_is_one_clear_error(text: str) -> None:
    with pytest.raises(ConfigError, match="config"):
        parse_training_config(text)


def test_a_missing_file_is_named() -> None:
    with pytest.raises(ConfigError, match=r"no/such\.yml does not exist"):
        load_training_config("no/such.yml")


def test_the_keys_of_the_fields_configs_are_known() -> None:
    config = parse_training_config("""
experiment:
  name: production
  src: ru
  trg: en
  archive-corpora: false
  teacher-ensemble: 2
  teacher-mode: two-stage
  teacher-decoder: marian
  student-model: base-memory
  corpus-max-sentences: 1000
  dev-max-sentences: 100
  mono-max-sentences-src: {total: 100, per-dataset: 10}
  mono-max-sentences-trg: {total: 100, per-dataset: 10}
  spm-sample-size: 1000
  spm-vocab-size: 32000
  spm-vocab-split: true
  spm-norm-rule: nmt_nfkc
  best-model: chrf
  opuscleaner-mode: custom
  bicleaner: {default-threshold: 0.5, dataset-thresholds: {opus_Books/v1: 0.0}}
  monocleaner:
    mono-src: {default-threshold: 0.0, dataset-thresholds: {}}
    mono-trg: {default-threshold: 0.0, dataset-thresholds: {}}
  hplt-min-doc-score: {mono-src: 5.0, mono-trg: 5.0}
marian-args:
  training-backward: {early-stopping: '5'}
  training-teacher: {early-stopping: '20', learn-rate: 1e-3}
  training-student: {early-stopping: 20, lr-warmup: 3000u}
  training-student-finetuned: {}
  decoding-backward: {beam-size: '12', mini-batch-words: '2000'}
  decoding-teacher: {mini-batch-words: '5000'}
datasets:
  train: [opus_Books/v1, 'mtdata_Statmt-x-1-rus-eng', 'url_https://host/x/[LANG].zst']
  devtest: [flores_dev, flores_aug-mix_devtest]
  test: [sacrebleu_wmt19]
  mono-src: [news-crawl_news.2021]
  mono-trg: [hplt_mono/v3.0]
target-stage: evaluate-teacher
previous-group-ids: [abc]
start-task-prefix: train
taskcluster:
  split-chunks: 20
  upload-bucket: production
  worker-classes: {default: gcp-spot}
wandb-publication: true
""")
    assert config.experiment.teacher_ensemble == 2
    assert config.to_parameters()["marian-args"]["decoding-teacher"] == {"mini-batch-words": "5000"}
    assert len(config.warnings()) == 2


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda c: (
            st.lists(c, max_size=3)
            | st.dictionaries(
                st.text(max_size=8) | st.sampled_from(["experiment", "datasets", "train", "src"]), c, max_size=4
            )
        ),
        max_leaves=12,
    )
)
def test_no_config_makes_the_reader_crash(values: object) -> None:
    with pytest.raises(ConfigError):
        parse_training_config(yaml.safe_dump(values, allow_unicode=True))
