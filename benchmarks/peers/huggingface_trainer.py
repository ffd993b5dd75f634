"""Hugging Face's Seq2SeqTrainer on the same sentences, with its own batches of as many sentences as fill our budget.

Out of the box it draws sentences at random and pads each batch to its longest; tuned it groups them by length, too.
"""

from pathlib import Path
from typing import Any

import datasets
import sentencepiece
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import MarianMTModel, Seq2SeqTrainer, Seq2SeqTrainingArguments, TrainerCallback

from peers.huggingface_model import EOS, PAD, make_model
from peers.tasks import Stopwatch, task_of_command_line


class Collator:
    """What DataCollatorForSeq2Seq does: pad both sides, and give the decoder what it reads (for label smoothing)."""

    def __init__(self, model: MarianMTModel) -> None:
        self.model = model

    def __call__(self, features: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        src, trg = (
            pad_sequence([torch.tensor(feature[name]) for feature in features], True, padding)
            for name, padding in (("input_ids", PAD), ("labels", -100))
        )
        read = self.model.prepare_decoder_input_ids_from_labels(trg)
        return {"input_ids": src, "attention_mask": (src != PAD).long(), "labels": trg, "decoder_input_ids": read}


def encode(processor: sentencepiece.SentencePieceProcessor, path: str) -> list[list[int]]:
    lines = Path(path).read_text(encoding="utf-8").split("\n")[:-1]
    return [[*ids, EOS] for ids in processor.encode(lines)]


class Watched(Seq2SeqTrainer):
    """Counts target tokens on their way through."""

    tokens = 0

    def compute_loss(self, model: Any, inputs: dict[str, torch.Tensor], *args: Any, **kwargs: Any) -> Any:
        self.tokens = int((inputs["labels"] != -100).sum())
        return super().compute_loss(model, inputs, *args, **kwargs)


def main() -> None:
    task = task_of_command_line()
    torch.set_num_threads(task.threads)
    processor = sentencepiece.SentencePieceProcessor(model_file=task.vocab)
    src, trg = (encode(processor, path) for path in task.train)
    data = datasets.Dataset.from_dict({"input_ids": src, "labels": trg, "length": [len(ids) for ids in trg]})
    model = make_model(task.architecture, processor.get_piece_size(), task.dropout, "eager" if task.tuned else None)
    tuned = {"bf16": True, "train_sampling_strategy": "group_by_length", "optim": "adamw_torch_fused"}
    arguments = Seq2SeqTrainingArguments(
        output_dir=task.folder,
        use_cpu=True,
        per_device_train_batch_size=task.sentences,
        learning_rate=task.learn_rate,
        label_smoothing_factor=task.label_smoothing,
        max_grad_norm=task.clip_norm,
        max_steps=task.warm_up + task.updates,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=1,
        **(tuned if task.tuned else {}),
    )
    watch = Stopwatch(task.warm_up, task.updates)

    class EndOfUpdate(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            watch.update(trainer.tokens)

    trainer = Watched(
        model=model,
        args=arguments,
        train_dataset=data,
        data_collator=Collator(model),
        callbacks=[EndOfUpdate()],
    )
    trainer.train()


if __name__ == "__main__":
    main()
