"""Weights as views of HuggingFace's, and their processing there and back."""

import copy
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from mishformer_lens import HookedTransformer
from mishformer_lens.errors import ForwardArgumentsError, ProcessingError
from tests.hooked_transformer.conftest import needs_reference
from tests.hooked_transformer.making import make_hf_model, make_model_of, make_reference
from tests.hooked_transformer.scenarios import tokens

ALL_PROCESSING = ("fold_ln", "center_writing_weights", "center_unembed", "fold_value_biases")


def test_every_weight_is_a_view_of_a_hugging_face_parameter(model: HookedTransformer) -> None:
    storages = {parameter.untyped_storage().data_ptr() for parameter in model.hf_model.parameters()}
    views = model.tl_parameters()
    assert len(views) == 5 + 16 * 2 + (model.cfg.positional_embedding_type == "standard")
    for name, view in views.items():
        assert (view.untyped_storage().data_ptr() in storages) == (name != "unembed.b_U"), name


def test_writing_to_a_view_changes_the_model(model: HookedTransformer) -> None:
    for name in model.tl_parameters():
        if name == "unembed.b_U":
            continue
        # A row of an embedding only matters for its own token or position.
        plain = model(tokens())
        view = model.tl_parameters()[name].data
        before = view.clone()
        view += torch.linspace(0, 1, view.shape[-1])
        # k's bias shifts all scores of a query alike
        if not name.endswith("b_K") or model.cfg.positional_embedding_type == "rotary":
            assert not torch.equal(model(tokens()), plain), name
        view.copy_(before)
        assert torch.equal(model(tokens()), plain), name


def test_assigning_copies_into_the_view(model: HookedTransformer) -> None:
    attn, parameter = model.blocks[0].attn, model.blocks[0].attn.query.weight
    new = torch.randn(attn.W_V.shape)
    others = attn.W_Q.clone(), attn.W_K.clone()
    attn.W_V = new
    assert attn.query.weight is parameter
    assert torch.equal(attn.W_V, new)
    assert torch.equal(attn.W_Q, others[0])
    assert torch.equal(attn.W_K, others[1])
    with pytest.raises(RuntimeError, match="size"):
        attn.W_V = torch.zeros(3, 3, 3)


def test_a_bias_that_the_model_lacks_is_zeros_until_it_is_assigned(model: HookedTransformer) -> None:
    assert not model.b_U.any()
    plain = model(tokens())
    model.unembed.b_U = torch.ones(model.cfg.d_vocab)
    torch.testing.assert_close(model(tokens()), plain + 1)


def test_gradients_reach_hugging_face_s_parameters(model: HookedTransformer) -> None:
    reference = make_hf_model(_kind(model))
    reference(tokens(), labels=tokens()).loss.backward()
    model(tokens(), return_type="loss").backward()
    for (name, ours), theirs in zip(model.hf_model.named_parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-6, msg=name)


def _kind(model: HookedTransformer) -> str:
    if model.instrumentation.family.name == "gpt2":
        return "gpt2"
    return "gpt_neox" if model.cfg.parallel_attn_mlp else "gpt_neox_sequential"


def test_parts_compute_what_the_model_computes(model: HookedTransformer) -> None:
    logits, cache = model.run_with_cache(tokens())
    last = cache["blocks.1.hook_resid_post"]
    assert torch.equal(model.unembed(model.ln_final(last)), logits)
    assert torch.equal(model.blocks[1].mlp(cache["blocks.1.ln2.hook_normalized"]), cache["blocks.1.hook_mlp_out"])
    assert torch.equal(model.embed(tokens()), cache["hook_embed"])
    result = torch.einsum("bphd,hdm->bpm", cache["blocks.0.attn.hook_z"], model.blocks[0].attn.W_O)
    torch.testing.assert_close(result + model.blocks[0].attn.b_O, cache["blocks.0.hook_attn_out"], rtol=1e-4, atol=1e-5)


def test_positional_embedding(tokenizer: Any) -> None:
    model = make_model_of("gpt2", tokenizer)
    _, cache = model.run_with_cache(tokens())
    assert torch.equal(model.pos_embed(tokens()), cache["hook_pos_embed"])
    assert torch.equal(model.pos_embed(tokens(), 3)[0], model.W_pos[3:10])
    rotary = make_model_of("gpt_neox")
    with pytest.raises(AttributeError, match="W_pos"):
        _ = rotary.W_pos


def test_labels_and_wrong_layers(model: HookedTransformer) -> None:
    assert model.all_head_labels() == [f"L{layer}H{head}" for layer in range(2) for head in range(4)]
    assert model.W_gate is None
    for layer, mlp_input in ((3, False), (-1, False), (2, True)):
        with pytest.raises(ForwardArgumentsError, match="layers 0 to 1"):
            model.accumulated_bias(layer, mlp_input=mlp_input)
    with pytest.raises(ForwardArgumentsError, match="'Q', 'K' or 'V'"):
        model.all_composition_scores("O")


@pytest.mark.parametrize("which", [*ALL_PROCESSING, "all"])
def test_processing_keeps_predictions_and_is_undone_bit_by_bit(model: HookedTransformer, which: str) -> None:
    plain = model(tokens())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    tied = model.hf_model.config.tie_word_embeddings
    chosen = {name: which in ("all", name) for name in ALL_PROCESSING}
    model.process_weights_(**chosen)
    assert any(not torch.equal(value, model.state_dict()[name]) for name, value in before.items())
    torch.testing.assert_close(model(tokens()).log_softmax(-1), plain.log_softmax(-1), rtol=1e-4, atol=1e-5)
    assert model.cfg.normalization_type == ("LNPre" if chosen["fold_ln"] else "LN")
    model.undo_processing()
    assert list(model.state_dict()) == list(before)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(model(tokens()), plain)
    assert model.hf_model.config.tie_word_embeddings == tied == model.cfg.tie_word_embeddings
    assert model.cfg.normalization_type == "LN"
    with pytest.raises(ProcessingError, match="nothing to undo"):
        model.undo_processing()


def test_what_processing_does(model: HookedTransformer) -> None:
    model.process_weights_()
    assert model.W_U.mean(-1).abs().max() < 1e-6
    assert model.W_E.mean(-1).abs().max() < 1e-6
    assert model.W_O.mean(-1).abs().max() < 1e-6
    assert not model.b_V.any()
    assert (model.ln_final.w == 1).all()
    bias: Any = model.blocks[0].ln1.b
    assert not bias.any()
    assert "ln_final.w" not in model.to_transformer_lens_state_dict()


def test_processing_twice_changes_nothing_more(model: HookedTransformer) -> None:
    model.process_weights_()
    once = {name: value.clone() for name, value in model.tl_parameters().items()}
    model.process_weights_()
    for name, value in model.tl_parameters().items():
        torch.testing.assert_close(value, once[name], rtol=1e-4, atol=1e-6)


def test_factored_matrices(tokenizer: Any) -> None:
    model = make_model_of("gpt2", tokenizer)
    plain, ov = model(tokens()), model.OV.AB
    model.process_weights_(fold_ln=False, refactor_factored_attn_matrices=True)
    torch.testing.assert_close(model(tokens()).log_softmax(-1), plain.log_softmax(-1), rtol=1e-3, atol=1e-4)
    w_o = model.blocks[0].attn.W_O
    torch.testing.assert_close(w_o @ w_o.transpose(-1, -2), torch.eye(8).expand(4, 8, 8), rtol=1e-4, atol=1e-4)
    assert model.OV.AB.shape == ov.shape
    rotary = make_model_of("gpt_neox")
    with pytest.raises(ProcessingError, match="rotary"):
        rotary.process_weights_(refactor_factored_attn_matrices=True)
    assert torch.equal(rotary(tokens()), make_model_of("gpt_neox")(tokens()))
    assert rotary.cfg.normalization_type == "LN"


@pytest.mark.parametrize("kind", ["gpt_neox"])
def test_processing_a_model_without_attention_biases(kind: str) -> None:
    model = make_model_of(kind, attention_bias=False)
    plain = model(tokens())
    assert not model.b_Q.any()
    names = list(model.state_dict())
    model.process_weights_()
    torch.testing.assert_close(model(tokens()).log_softmax(-1), plain.log_softmax(-1), rtol=1e-4, atol=1e-5)
    model.undo_processing()
    assert list(model.state_dict()) == names
    assert torch.equal(model(tokens()), plain)


def test_a_processed_model_is_saved_and_loaded_as_it_is(saved: Path, tmp_path: Path) -> None:
    model = HookedTransformer.from_pretrained(saved, device="cpu")
    model.process_weights_()
    expected = model(tokens()).log_softmax(-1)
    model.hf_model.save_pretrained(tmp_path / "processed")
    again = HookedTransformer.from_pretrained(tmp_path / "processed", device="cpu")
    # The head's new bias is no part of HuggingFace's architecture: what it adds is not saved.
    difference = again(tokens()) + model.b_U
    torch.testing.assert_close(difference.log_softmax(-1), expected, rtol=1e-4, atol=1e-5)


def test_state_dict_has_hugging_face_s_names(model: HookedTransformer) -> None:
    plain = make_hf_model(_kind(model))
    assert list(model.state_dict()) == list(plain.state_dict())
    other = copy.deepcopy(model)
    other.blocks[0].mlp.W_in = torch.zeros_like(other.blocks[0].mlp.W_in)
    assert not torch.equal(other(tokens()), model(tokens()))
    other.load_state_dict(plain.state_dict())
    assert torch.equal(other(tokens()), model(tokens()))
    with pytest.raises(RuntimeError, match="Unexpected key"):
        model.load_state_dict(dict(plain.state_dict()) | {"nonsense": torch.zeros(1)})


def test_what_does_not_fit_is_reported_by_the_names_that_were_used(model: HookedTransformer) -> None:
    whole = model.hf_model.state_dict()
    first, last = next(iter(whole)), list(whole)[-2]
    given = {name: value for name, value in whole.items() if name != first} | {"nonsense": torch.zeros(1)}
    result = model.load_state_dict(given, strict=False)
    assert result.missing_keys == [first]
    assert result.unexpected_keys == ["nonsense"]
    for wrong, message in (
        (given, rf"(?s)Missing key.*\"{first}\".*Unexpected key.*\"nonsense\""),
        (whole | {last: torch.zeros(2)}, rf"size mismatch for {last}"),
    ):
        with pytest.raises(RuntimeError, match=message) as error:
            model.load_state_dict(wrong)
        assert "hf_model" not in str(error.value)


def test_a_part_of_the_state_dict_is_loaded(model: HookedTransformer) -> None:
    new = torch.full_like(model.hf_model.get_input_embeddings().weight, 0.5)
    name = next(name for name, value in model.hf_model.state_dict().items() if value.shape == new.shape)
    result = model.load_state_dict({name: new}, strict=False)
    assert torch.equal(model.W_E, new)
    assert name not in result.missing_keys
    assert not result.unexpected_keys


def test_loading_can_take_over_the_given_tensors(model: HookedTransformer) -> None:
    given = {name: value.clone() for name, value in model.hf_model.state_dict().items()}
    name = next(name for name, value in given.items() if value.shape == model.W_E.shape)
    model.load_state_dict(given, assign=True)
    assert model.W_E.data_ptr() == given[name].data_ptr()


def test_safetensors_saves_and_loads_it(model: HookedTransformer, tmp_path: Path) -> None:
    plain = model(tokens())
    file = str(tmp_path / "model.safetensors")
    safetensors.torch.save_model(model, file)
    model.init_weights()
    assert not torch.equal(model(tokens()), plain)
    missing, unexpected = safetensors.torch.load_model(model, file)
    assert not missing
    assert not unexpected
    assert torch.equal(model(tokens()), plain)
    other = make_hf_model(_kind(model))
    safetensors.torch.load_model(other, file)
    assert torch.equal(other(tokens()).logits, plain)
    contents = safetensors.torch.load_file(file)
    safetensors.torch.save_file(contents | {"nonsense": torch.zeros(1)}, file)
    assert list(safetensors.torch.load_model(model, file, strict=False)[1]) == ["nonsense"]
    with pytest.raises(RuntimeError, match=r'Unexpected key.*"nonsense"'):
        safetensors.torch.load_model(model, file)


def test_state_dict_as_a_part_of_another_module(model: HookedTransformer) -> None:
    outer = torch.nn.ModuleDict({"lens": model})
    names = [f"lens.{name}" for name in model.hf_model.state_dict()]
    assert list(outer.state_dict()) == names
    outer.load_state_dict(outer.state_dict())
    rest = {name: value for name, value in outer.state_dict().items() if name != names[0]}
    result = outer.load_state_dict(rest | {"lens.nonsense": torch.zeros(1)}, strict=False)
    assert result.missing_keys == names[:1]
    assert result.unexpected_keys == ["lens.nonsense"]


def test_transformer_lens_s_state_dict_there_and_back(model: HookedTransformer) -> None:
    plain = model(tokens())
    values = {name: value.clone() for name, value in model.to_transformer_lens_state_dict().items()}
    model.init_weights()
    assert not torch.equal(model(tokens()), plain)
    keep = dict.fromkeys(ALL_PROCESSING, False)
    model.load_and_process_state_dict(values, **keep)
    assert torch.equal(model(tokens()), plain)
    swapped = {"blocks.0.attn.W_Q": "blocks.0.attn.W_K", "blocks.0.attn.W_K": "blocks.0.attn.W_Q"}
    views = model.to_transformer_lens_state_dict()
    model.load_and_process_state_dict({name: views[other] for name, other in swapped.items()}, **keep)
    assert all(torch.equal(views[name], values[other]) for name, other in swapped.items())
    partial = model.fill_missing_keys({"ln_final.b": torch.ones(model.cfg.d_model)})
    assert list(partial) == list(values)
    assert partial["ln_final.b"].all()
    with pytest.raises(ProcessingError, match=r"Did you mean 'blocks.0.attn.W_Q'"):
        model.load_and_process_state_dict({"blocks.0.atn.W_Q": values["blocks.0.attn.W_Q"]}, **keep)


@needs_reference
def test_transformer_lens_s_own_state_dict_can_be_loaded(kind: str) -> None:
    reference, model = make_reference(kind, processed=True), make_model_of(kind)
    values = model.to_transformer_lens_state_dict()
    own = {name for name, _ in make_reference(kind).named_parameters()}
    assert set(values) == own
    keep = dict.fromkeys(ALL_PROCESSING, False)
    other = make_model_of(kind)
    other.init_weights()
    other.load_and_process_state_dict(make_reference(kind).state_dict(), **keep)
    torch.testing.assert_close(other(tokens()), make_reference(kind)(tokens()), rtol=1e-4, atol=1e-4)
    model.process_weights_()
    theirs = reference.state_dict()
    ours = model.to_transformer_lens_state_dict()
    assert set(ours) == {name for name, _ in reference.named_parameters()}
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-4, atol=1e-5, msg=name)


def test_new_weights_follow_the_seed(model: HookedTransformer) -> None:
    model.cfg.seed = 3
    model.init_weights()
    first = model(tokens())
    model.init_weights()
    assert torch.equal(model(tokens()), first)


def test_parts_say_what_they_are(model: HookedTransformer) -> None:
    attention = model.blocks[1].attn
    assert repr(attention).startswith("blocks.1.attn(W_Q [4, 32, 8], ")
    torch.testing.assert_close(attention.OV.AB, attention.W_V @ attention.W_O)
