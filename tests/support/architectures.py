"""Changes to a tiny model that together cover what a model can be."""

from typing import Any

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "usual": {},
    "pre-norm": {
        "transformer_preprocess": "n",
        "transformer_postprocess": "da",
        "transformer_postprocess_top": "n",
        "transformer_ffn_activation": "gelu",
    },
    "two-vocabularies": {
        "dim_vocabs": (400, 296),
        "tied_embeddings_all": False,
        "tied_embeddings": True,
        "transformer_postprocess_emb": "nd",
        "output_omit_bias": True,
    },
    "untied": {"tied_embeddings_all": False, "transformer_ffn_activation": "swish"},
    "tied-source": {"tied_embeddings_all": False, "tied_embeddings_src": True},
    "tied-source-and-output": {"tied_embeddings_all": False, "tied_embeddings_src": True, "tied_embeddings": True},
    "tied-layers": {"dec_depth": 3, "transformer_tied_layers": (1, 1, 3)},
    "ssru": {"transformer_decoder_autoreg": "rnn", "dec_cell": "ssru"},
    "pre-norm-ssru-tied-layers": {
        "transformer_decoder_autoreg": "rnn",
        "dec_cell": "ssru",
        "transformer_tied_layers": (2, 2),
        "transformer_preprocess": "n",
        "transformer_postprocess": "da",
        "transformer_postprocess_top": "n",
    },
}
