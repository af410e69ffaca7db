"""What a tensor is for and where it belongs, told by its name in the architectures that are common."""

from __future__ import annotations

import re
from functools import cache
from typing import Literal

Kind = Literal["attention", "mlp", "norm", "embedding", "head", "other"]

_EMBEDDINGS = re.compile(r"(.+\.)?(embed_tokens|tok_embeddings|word_embeddings|wte|embed_in|shared)\.weight")
_HEADS = re.compile(
    r"(.+\.)?((lm_head|embed_out|predictions\.decoder|vocab_projector)\.(weight|bias)|predictions\.bias)"
)

_WORDS: tuple[tuple[Kind, str], ...] = (
    ("norm", r"(?:\w*_)?(?:layer_?norm|norm)\w*|ln(?:_\w+|\d*)|LayerNorm"),
    ("attention", r"(?:\w*_)?attn\w*|(?:\w*_)?attention\w*|[qkvo]_proj|qkv\w*|SelfAttention|EncDecAttention|mixer"),
    (
        "mlp",
        r"mlp|ffn|feed_forward|intermediate|(?:gate|up|down|gate_up)_proj|fc\d|experts|DenseReluDense|output\.dense",
    ),
    ("embedding", r"(?:\w*_)?embed\w*|wte|wpe|shared|patch_embed\w*|cls_token|pos_embed\w*"),
    ("head", r"(?:\w*_)?head|classifier|score|embed_out|predictions|pooler|output"),
)
_KINDS = tuple((kind, re.compile(rf"(?:^|[._])(?:{names})(?:$|[._])")) for kind, names in _WORDS)


def is_embeddings(name: str) -> bool:
    """Whether each row of a tensor is what a token goes in as."""
    return _EMBEDDINGS.fullmatch(name) is not None


def is_head(name: str) -> bool:
    """Whether each row of a tensor gives a token's logit."""
    return _HEADS.fullmatch(name) is not None


@cache
def kind_of(name: str) -> Kind:
    """The part of a layer, or of what is before and after the layers, that a tensor belongs to."""
    if is_head(name):
        return "head"
    return next((kind for kind, pattern in _KINDS if pattern.search(name)), "other")


@cache
def layer_of(name: str) -> int | None:
    """The layer that a tensor belongs to: the first whole number in its dotted name, ``None`` without one."""
    return next((int(part) for part in name.split(".") if part.isdecimal()), None)
