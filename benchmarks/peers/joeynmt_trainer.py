"""JoeyNMT's own trainer, configured like its transformer examples, with our sizes.

Tuned it runs under bfloat16 autocast, which it does not offer for processors by itself: its fp16 switch is off there.
"""

from pathlib import Path
from typing import Any

import joeynmt.training
import sentencepiece
import torch
import yaml
from joeynmt.config import load_config

from peers.tasks import SpeedTask, Stopwatch, task_of_command_line

UNK, PAD, BOS, EOS = range(4)


def vocabulary(processor: sentencepiece.SentencePieceProcessor) -> list[str]:
    """JoeyNMT's special pieces, then those of the SentencePiece model."""
    return [
        processor.id_to_piece(number)
        for number in range(processor.get_piece_size())
        if not (processor.is_control(number) or processor.is_unknown(number))
    ]


def configuration(task: SpeedTask) -> dict[str, Any]:
    """The YAML configuration of a training, as a user writes it."""
    folder, architecture = Path(task.folder), task.architecture
    prefixes = [str(folder / name) for name in ("train", "dev")]
    for prefix, sides in zip(prefixes, (task.train, task.dev), strict=True):
        for language, side in zip(("en", "de"), sides, strict=True):
            Path(f"{prefix}.{language}").symlink_to(Path(side).resolve())
    pieces = vocabulary(sentencepiece.SentencePieceProcessor(model_file=task.vocab))
    (folder / "vocab.txt").write_text("\n".join(["<unk>", "<pad>", "<s>", "</s>", *pieces]) + "\n", encoding="utf-8")
    side = {
        "level": "bpe",
        "tokenizer_type": "sentencepiece",
        "tokenizer_cfg": {"model_file": task.vocab},
        "voc_file": str(folder / "vocab.txt"),
        "max_length": 100,
    }
    stack = {
        "type": "transformer",
        "num_heads": architecture.heads,
        "hidden_size": architecture.width,
        "ff_size": architecture.ffn,
        "dropout": task.dropout,
        "embeddings": {"embedding_dim": architecture.width, "scale": True, "dropout": task.dropout},
        "layer_norm": "post",
    }
    return {
        "name": "benchmark",
        "joeynmt_version": "2.3.0",
        "model_dir": str(folder / "model"),
        "use_cuda": False,
        "random_seed": 1,
        "data": {
            "train": prefixes[0],
            "dev": prefixes[1],
            "dataset_type": "plain",
            "src": {"lang": "en", **side},
            "trg": {"lang": "de", **side},
            "special_symbols": {"unk_id": UNK, "pad_id": PAD, "bos_id": BOS, "eos_id": EOS},
        },
        "testing": {"beam_size": 1, "batch_size": 32},
        "training": {
            "optimizer": "adam",
            "adam_betas": [0.9, 0.98],
            "learning_rate": task.learn_rate,
            "scheduling": "warmupinversesquareroot",
            "learning_rate_min": 1e-9,
            "label_smoothing": task.label_smoothing,
            "clip_grad_norm": task.clip_norm,
            "batch_size": task.words,
            "batch_type": "token",
            "normalization": "tokens",
            "epochs": 1000,
            "updates": task.warm_up + task.updates + 1,
            "validation_freq": 1_000_000,
            "logging_freq": 100,
            "overwrite": True,
        },
        "model": {
            "initializer": "xavier_uniform",
            "tied_embeddings": True,
            "tied_softmax": True,
            "encoder": {**stack, "num_layers": architecture.enc_depth},
            "decoder": {**stack, "num_layers": architecture.dec_depth},
        },
    }


def main() -> None:
    task = task_of_command_line()
    torch.set_num_threads(task.threads)
    path = Path(task.folder) / "config.yml"
    path.write_text(yaml.safe_dump(configuration(task)), encoding="utf-8")
    (Path(task.folder) / "model").mkdir()
    if task.tuned:
        parse = joeynmt.training.parse_global_args
        autocast = {"device_type": "cpu", "enabled": True, "dtype": torch.bfloat16}
        joeynmt.training.parse_global_args = lambda *given, **named: parse(*given, **named)._replace(autocast=autocast)
    watch = Stopwatch(task.warm_up, task.updates)
    step = joeynmt.training.TrainManager._train_step
    tokens: list[int] = []

    def watched(manager: Any, batch: Any) -> Any:
        # One call is one update (batch_multiplier is 1); its optimizer step lies between this call and the next one.
        if tokens and watch.update(tokens[-1]):
            raise SystemExit
        tokens.append(int(batch.ntokens))
        return step(manager, batch)

    joeynmt.training.TrainManager._train_step = watched
    joeynmt.training.train(rank=0, world_size=None, cfg=load_config(path), skip_test=True)


if __name__ == "__main__":
    main()
