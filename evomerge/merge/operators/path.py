"""A path through the layers of several models: at every place one model's layer, scaled, or none."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

from evomerge.errors import RecipeError
from evomerge.merge.operators.options import check_options
from evomerge.merge.operators.port import LinearOperator, Parameter, Stretch, Values

_OUTPUTS = r"o_proj|out_proj|wo|c_proj|dense|proj|down_proj|w2|fc2|fc_out|dense_4h_to_h"
"""What architectures call the matrices (and biases) whose product a layer adds to the hidden state."""

_INNER = (
    r"[qkv]_proj|[wW]qkv|wq|wk|wv|qkv(_proj)?|query_key_value|c_attn|gate_proj|up_proj|gate_up_proj|w1|w3|fc1|fc_in|c_fc"
    r"|dense_h_to_4h|[qk]_norm|input_layernorm|post_attention_layernorm|layer_?norm_?\w*|self_attn_layer_norm"
    r"|final_layer_norm|ln_[12f]|attention_norm|ffn_norm|norm[12]|rotary_emb|bias|masked_bias"
)
"""What they call the rest of a layer that normalises what it reads and not what it adds."""

_NOT_ADDED = re.compile(r"(^|\.)output\.|post_feedforward|pre_feedforward")  # BERT's kind, and Gemma 2's


@dataclass(frozen=True)
class Path(LinearOperator):
    """One of the sources' layers at every place, or none (data flow space; Akiba et al., arXiv 2403.13187).

    The sources are stacks of equally many layers (``pool.layers``). Values of a place: one ``scale`` per source, of
    which at most one is not 0: whose layer it is, and by what all is multiplied that it adds to the hidden state. With
    none the layer adds nothing, and the hidden state passes. What belongs to no layer is the first source's.

    Layers must normalise what they read and add what they compute (pre-norm). ``auto`` knows the ``outputs`` of common
    architectures; for others name them, with commas between: the parts of tensors' names by which those are told whose
    product is added.
    """

    outputs: str = "auto"

    parameters: ClassVar = (Parameter("scale", 0.0, 1.0, 1.0, "source", limits=(0.0, float("inf"))),)
    ordered: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_options(self)

    @property
    def per_tensor(self) -> bool:
        """Outputs are scaled, other tensors of a layer are not."""
        return True

    def coefficients(self, values: Values, stretch: Stretch) -> tuple[float, ...]:
        """All of the chosen source's tensor, or of the first one's."""
        scales = values.each("scale")
        used = [at for at, scale in enumerate(scales) if scale != 0]
        if len(used) > 1:
            raise RecipeError(f"path has {len(used)} layers at one place; all scales but one must be 0, not {scales}")
        chosen = used[0] if used and stretch.layer is not None else 0
        scaled = stretch.layer is not None and self._adds(stretch.tensor or "")
        share = scales[chosen] if scaled else 1.0
        return tuple(share if at == chosen else 0.0 for at in range(len(scales)))

    def _adds(self, tensor: str) -> bool:
        """Whether the layer adds the tensor's product to the hidden state."""
        if self.outputs == "auto":
            return _adds(tensor)
        return not {part.strip() for part in self.outputs.split(",")}.isdisjoint(tensor.split("."))


@cache
def _adds(tensor: str) -> bool:
    parts = tensor.split(".")[::-1]
    if _NOT_ADDED.search(tensor) is None:
        if any(re.fullmatch(_OUTPUTS, part) for part in parts[:2]):
            return True
        if any(re.fullmatch(_INNER, part) for part in parts[:2]):
            return False
    raise RecipeError(
        f"path cannot tell whether {tensor!r} is added to the hidden state as it is; if its layers normalise what they "
        "read and not what they add, name their outputs: the option outputs, such as 'o_proj, down_proj'"
    )
