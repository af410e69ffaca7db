import json
from pathlib import Path

import pytest
import torch
import transformers

from evomerge.errors import PoolError
from evomerge_fitness.mlp import MLP, MLPConfig, save_mlp
from evomerge_fitness.skeletons import skeleton

TINY = {"num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 8, "intermediate_size": 8}
TINY |= {"bos_token_id": None, "eos_token_id": None}
CONFIGS = {
    "BertForSequenceClassification": transformers.BertConfig(vocab_size=11, **TINY),
    "ViTForImageClassification": transformers.ViTConfig(image_size=4, patch_size=2, **TINY),
    "LlamaForCausalLM": transformers.LlamaConfig(vocab_size=11, **TINY),
    "LlamaForSequenceClassification": transformers.LlamaConfig(vocab_size=11, **TINY),
    "BertModel": transformers.BertConfig(vocab_size=11, **TINY),
    "GPT2LMHeadModel": transformers.GPT2Config(
        vocab_size=11, n_embd=8, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0
    ),
}


def write(folder: Path, name: str) -> transformers.PreTrainedModel:
    model: transformers.PreTrainedModel = getattr(transformers, name)(CONFIGS[name])
    model.save_pretrained(folder)
    return model.eval()


@pytest.mark.parametrize("name", CONFIGS)
def test_a_filled_skeleton_is_the_model(tmp_path: Path, name: str) -> None:
    model = write(tmp_path, name)
    live = skeleton(tmp_path)
    assert type(live) is type(model)
    assert not live.training
    assert not any(parameter.requires_grad for parameter in live.parameters())
    mine, original = dict(live.named_parameters()), dict(model.named_parameters())
    assert mine.keys() == original.keys()
    for key, parameter in mine.items():
        parameter.copy_(original[key])
    inputs = {"input_ids": torch.tensor([[3, 4, 5]])}
    if name.startswith("ViT"):
        inputs = {"pixel_values": torch.ones(1, 3, 4, 4)}
    with torch.inference_mode():
        one, two = live(**inputs), model(**inputs)
    torch.testing.assert_close(one[0], two[0], rtol=0, atol=0)


def test_mlp_folders_need_no_transformers(tmp_path: Path) -> None:
    save_mlp(tmp_path, MLP(MLPConfig((4, 2))).state_dict(), (4, 2))
    assert isinstance(skeleton(tmp_path), MLP)
    with pytest.raises(PoolError, match="plain MLP"):
        skeleton(tmp_path, "text")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, r"has no config\.json"),
        ("{", "cannot read"),
        ("[1]", "model_type"),
        ('{"hidden": 3}', "model_type"),
        ('{"model_type": "no_such_model"}', "no_such_model"),
    ],
)
def test_unusable_configs_are_refused(tmp_path: Path, config: str | None, message: str) -> None:
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    with pytest.raises(PoolError, match=message):
        skeleton(tmp_path)


def test_a_missing_head_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "BertModel")
    with pytest.raises(PoolError, match=r"names BertModel; this fitness needs a model \.\.\.ForSequenceClassification"):
        skeleton(tmp_path, "text")


def test_code_of_a_checkpoint_is_never_run(tmp_path: Path) -> None:
    config = {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "evil.py").write_text("raise SystemExit('ran')")
    with pytest.raises(PoolError, match="evil"):
        skeleton(tmp_path)
