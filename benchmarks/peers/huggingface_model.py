"""The peer's model: Hugging Face's MarianMTModel in one of our architectures."""

from transformers import MarianConfig, MarianMTModel

from peers.tasks import Architecture

# Pieces of our vocabularies: 0 ends a sentence; 1 is unknown, which byte fallback never produces, so it can pad.
EOS, PAD = 0, 1


def make_model(architecture: Architecture, vocab: int, dropout: float, attention: str | None = None) -> MarianMTModel:
    """A fresh model; `attention` is transformers' attn_implementation, by default what it chooses itself."""
    config = MarianConfig(
        vocab_size=vocab,
        decoder_vocab_size=vocab,
        d_model=architecture.width,
        encoder_layers=architecture.enc_depth,
        decoder_layers=architecture.dec_depth,
        encoder_ffn_dim=architecture.ffn,
        decoder_ffn_dim=architecture.ffn,
        encoder_attention_heads=architecture.heads,
        decoder_attention_heads=architecture.heads,
        activation_function="relu",
        dropout=dropout,
        attention_dropout=0.0,
        activation_dropout=0.0,
        max_position_embeddings=256,
        scale_embedding=True,
        share_encoder_decoder_embeddings=True,
        tie_word_embeddings=True,
        pad_token_id=PAD,
        eos_token_id=EOS,
        decoder_start_token_id=PAD,
        forced_eos_token_id=EOS,
    )
    options = {"attn_implementation": attention} if attention else {}
    return MarianMTModel._from_config(config, **options).train()
