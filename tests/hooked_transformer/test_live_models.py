"""What a live model can change, read from it as it is: layers, heads, vocabulary, parts, devices."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

from mishformer_lens import HookedTransformer
from mishformer_lens.errors import TokensOutOfRangeError, UnreadableWeightError
from tests.hooked_transformer.making import make_hf_model, make_model_of
from tests.hooked_transformer.scenarios import D_VOCAB, tokens
from tests.hooked_transformer.test_partial_passes import make_deep


def blocks_of(hf_model: Any) -> nn.ModuleList:
    base = hf_model.base_model
    found = base.h if "h" in dict(base.named_children()) else base.layers
    assert isinstance(found, nn.ModuleList)
    return found


def cut(hf_model: Any, number: int) -> None:
    """Take layers off the end, without a word to the configuration."""
    del blocks_of(hf_model)[number:]


@pytest.mark.parametrize("when", ["before", "after"])
def test_layers_that_were_cut_off(kind: str, when: str) -> None:
    model = make_deep(kind)
    if when == "before":
        cut(model.hf_model, 3)
        model = HookedTransformer(model.hf_model)
    else:
        assert len(model.blocks) == model.cfg.n_layers == 4
        cut(model.hf_model, 3)
    assert len(model.blocks) == model.cfg.n_layers == 3
    assert model.W_Q.shape[0] == 3
    assert len(model.all_head_labels()) == 12
    plain = model.hf_model(tokens()).logits
    assert torch.equal(model(tokens()), plain)
    _, cache = model.run_with_cache(tokens())
    assert "blocks.2.hook_resid_post" in cache
    assert "blocks.3.hook_resid_post" not in cache
    # a negative number counts from the layers that there are
    residual = model(tokens(), stop_at_layer=-1)
    assert torch.equal(residual, cache["blocks.2.hook_resid_pre"])
    assert torch.equal(model(residual, start_at_layer=-1), plain)
    assert torch.equal(model(tokens(), stop_at_layer=3), cache["blocks.2.hook_resid_post"])


def test_a_note_in_the_configuration_stays_until_the_model_changes(kind: str) -> None:
    model = make_deep(kind)
    model.cfg.n_layers = 77  # a note of the user's own stays until the model changes
    assert model.cfg.n_layers == 77
    assert model(tokens(), stop_at_layer=-1).shape == (2, 7, 32)
    cut(model.hf_model, 2)
    assert model.cfg.n_layers == 2


def test_a_vocabulary_that_was_resized(model: HookedTransformer) -> None:
    with pytest.raises(TokensOutOfRangeError, match=f"knows 0 to {D_VOCAB - 1}"):
        model(tokens() + D_VOCAB - 10)
    model.hf_model.resize_token_embeddings(D_VOCAB + 8)
    assert model.cfg.d_vocab == model.cfg.d_vocab_out == D_VOCAB + 8
    assert model.W_E.shape == (D_VOCAB + 8, 32)
    assert model.W_U.shape == (32, D_VOCAB + 8)
    new = torch.tensor([[D_VOCAB, 5, D_VOCAB + 7]])
    assert torch.equal(model(new), model.hf_model(new).logits)
    with pytest.raises(TokensOutOfRangeError, match=f"knows 0 to {D_VOCAB + 7}"):
        model(new + 1)
    model.W_E.data[D_VOCAB] = 1.0
    assert (model.hf_model.get_input_embeddings().weight[D_VOCAB] == 1).all()


def test_no_token_ends_a_text_after_resizing(model: HookedTransformer) -> None:
    model.hf_model.resize_token_embeddings(D_VOCAB + 8)
    new = D_VOCAB  # the first that the configuration did not know
    model.unembed.b_U = torch.nn.functional.one_hot(torch.tensor(new), D_VOCAB + 8) * 1e4
    arguments: dict[str, Any] = {"max_new_tokens": 5, "do_sample": False, "verbose": False}
    got = model.generate(tokens(), stop_at_eos=False, **arguments)
    assert got.shape == (2, 12)
    assert (got[:, 7:] == new).all()
    assert model.generate(tokens(), eos_token_id=new, **arguments).shape == (2, 8)


def test_parts_that_were_replaced(model: HookedTransformer) -> None:
    attn, before = model.blocks[0].attn, model.blocks[0].attn.W_Q.clone()
    block = blocks_of(model.hf_model)[0]
    blocks_of(model.hf_model)[0] = copy.deepcopy(blocks_of(model.hf_model)[1])
    assert torch.equal(attn.W_Q, model.blocks[1].attn.W_Q)
    assert not torch.equal(attn.W_Q, before)
    blocks_of(model.hf_model)[0] = block
    assert torch.equal(attn.W_Q, before)


def test_what_a_replaced_part_computes_is_what_is_written_to(model: HookedTransformer) -> None:
    blocks_of(model.hf_model)[0] = copy.deepcopy(blocks_of(model.hf_model)[0])
    plain = model(tokens())
    model.blocks[0].mlp.W_out = torch.zeros_like(model.blocks[0].mlp.W_out)
    assert not torch.equal(model(tokens()), plain)


def test_pruned_heads() -> None:
    hf_model = make_hf_model("gpt2")
    if "prune_heads" not in dir(hf_model):
        pytest.skip("transformers prunes no heads from 5.0 on")
    model = HookedTransformer(hf_model)
    kept = model.blocks[0].attn.W_V[[0, 2, 3]].clone(), model.blocks[0].attn.W_O[[0, 2, 3]].clone()
    hf_model.prune_heads({0: [1]})
    attn = model.blocks[0].attn
    assert attn.n_heads == 3
    assert torch.equal(attn.W_V, kept[0])
    assert torch.equal(attn.W_O, kept[1])
    assert len(model.all_head_labels()) == 7
    assert torch.equal(model(tokens()), hf_model(tokens()).logits)
    with pytest.raises(UnreadableWeightError, match=r"model.blocks\[i\].attn.W_V"):
        _ = model.W_V
    hf_model.prune_heads({1: [2]})
    assert model.W_V.shape == (2, 3, 32, 8)
    assert model.cfg.n_heads == 3


def test_dtype_and_device_that_were_changed_behind_its_back(model: HookedTransformer) -> None:
    model.hf_model.to(torch.float64)
    assert model.cfg.dtype == torch.float64
    model.cfg.device = "meta"  # what somebody sets stays, for move_model_modules_to_device()
    assert model.cfg.device == "meta"
    assert model.to("cpu").cfg.device == torch.device("cpu")


def test_one_block_at_two_places_has_one_set_of_weights(kind: str) -> None:
    hf_model = make_hf_model(kind)
    blocks_of(hf_model)[1] = blocks_of(hf_model)[0]
    model = make_model_of(kind)
    blocks_of(model.hf_model)[1] = blocks_of(model.hf_model)[0]
    assert len(model.blocks) == 2
    assert model.blocks[0].attn.query is model.blocks[1].attn.query


def test_a_projection_of_another_width_by_hand(kind: str) -> None:
    """An embedding that was enlarged by hand says what it knows."""
    model = make_model_of(kind)
    embedding = model.hf_model.get_input_embeddings()
    embedding.weight = nn.Parameter(torch.cat([embedding.weight.detach(), torch.zeros(3, 32)]))
    assert model.cfg.d_vocab == D_VOCAB + 3
    assert model(torch.tensor([[D_VOCAB + 2]])).shape[:2] == (1, 1)
