"""Model specification of all-MiniLM-L6-v2 for CTranslate2, filled with the published tensors."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from citadel_embeddings.backends.local.weights import Tensors

LAYERS = 6
HEADS = 12
LAYER_NORM_EPSILON = 1e-12


def model_spec(tensors: Tensors, tokenizer: Path) -> Any:
    """Return the specification, filled and validated, ready to be saved.

    Args:
        tensors: The published weights, by their names in the safetensors file.
        tokenizer: The published tokenizer.json, for the vocabulary.

    Returns:
        A `ctranslate2.specs.TransformerEncoderModelSpec`.
    """
    from ctranslate2.specs import TransformerEncoderModelSpec

    spec = TransformerEncoderModelSpec(_encoder(tensors))
    spec.register_vocabulary(_vocabulary(tokenizer))
    spec.config.unk_token = "[UNK]"  # noqa: S105 - a word piece, not a secret
    spec.config.layer_norm_epsilon = LAYER_NORM_EPSILON
    spec.validate()
    return spec


def _encoder(tensors: Tensors) -> Any:
    encoder = _empty_encoder()
    encoder.scale_embeddings = False
    words, token_types = encoder.embeddings
    words.weight = tensors["embeddings.word_embeddings.weight"]
    token_types.weight = tensors["embeddings.token_type_embeddings.weight"]
    encoder.position_encodings.encodings = tensors["embeddings.position_embeddings.weight"]
    _fill_norm(encoder.layernorm_embedding, tensors, "embeddings.LayerNorm")
    for number, layer in enumerate(encoder.layer):
        _fill_layer(layer, tensors, f"encoder.layer.{number}")
    return encoder


def _empty_encoder() -> Any:
    from ctranslate2.specs import common_spec, transformer_spec

    return transformer_spec.TransformerEncoderSpec(
        LAYERS,
        HEADS,
        pre_norm=False,
        activation=common_spec.Activation.GELU,
        num_source_embeddings=2,
        embeddings_merge=common_spec.EmbeddingsMerge.ADD,
        layernorm_embedding=True,
    )


def _fill_layer(layer: Any, tensors: Tensors, name: str) -> None:
    fused, output = layer.self_attention.linear
    for part in ("weight", "bias"):
        # CTranslate2 computes the three projections in one product
        heads = [tensors[f"{name}.attention.self.{which}.{part}"] for which in ("query", "key", "value")]
        setattr(fused, part, np.concatenate(heads))
    _fill_linear(output, tensors, f"{name}.attention.output.dense")
    _fill_norm(layer.self_attention.layer_norm, tensors, f"{name}.attention.output.LayerNorm")
    _fill_linear(layer.ffn.linear_0, tensors, f"{name}.intermediate.dense")
    _fill_linear(layer.ffn.linear_1, tensors, f"{name}.output.dense")
    _fill_norm(layer.ffn.layer_norm, tensors, f"{name}.output.LayerNorm")


def _fill_linear(linear: Any, tensors: Tensors, name: str) -> None:
    linear.weight = tensors[f"{name}.weight"]
    linear.bias = tensors[f"{name}.bias"]


def _fill_norm(norm: Any, tensors: Tensors, name: str) -> None:
    norm.gamma = tensors[f"{name}.weight"]
    norm.beta = tensors[f"{name}.bias"]


def _vocabulary(tokenizer: Path) -> list[str]:
    pieces: dict[str, int] = json.loads(tokenizer.read_text(encoding="utf-8"))["model"]["vocab"]
    return sorted(pieces, key=pieces.__getitem__)
