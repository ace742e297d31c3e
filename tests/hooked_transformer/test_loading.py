"""Loading by name and from folders, the configuration, devices and dtypes."""

import dataclasses
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import mishformer_lens
from mishformer_lens import HookedTransformer
from mishformer_lens.errors import CheckpointNotFoundError, ForwardArgumentsError, UnsupportedModelError
from mishformer_lens.hooked_transformer import HookedTransformerConfig, loading
from mishformer_lens.hooked_transformer.families import refuse_other_forms
from mishformer_lens.hooked_transformer.names import checkpoint_revision, checkpoint_steps, hugging_face_name
from mishformer_lens.patchers import FAMILIES
from tests.hooked_transformer.conftest import needs_reference
from tests.hooked_transformer.making import TEXTS, make_hf_model, make_model_of, make_reference
from tests.hooked_transformer.scenarios import tokens
from tests.kinds import kinds
from tests.models import N_HEADS, Case, make_model, make_tokens


def test_from_a_folder(saved: Path) -> None:
    plain = transformers.AutoModelForCausalLM.from_pretrained(saved)
    model = HookedTransformer.from_pretrained(saved, device="cpu")
    assert torch.equal(model(tokens()), plain(tokens()).logits)
    assert model.to_tokens(TEXTS).shape[0] == 2
    assert model.cfg.model_name == saved.name
    assert model.cfg.tokenizer_name == str(saved)
    assert not model.training
    again = HookedTransformer.from_pretrained_no_processing(saved, device="cpu", default_padding_side="left")
    assert torch.equal(again(tokens()), plain(tokens()).logits)
    assert again.tokenizer.padding_side == "left"


# One kind a family; in some releases StableLM itself cannot make the other.
WITHOUT_DROP_IN = {kind.family: name for name, kind in kinds().items() if FAMILIES[kind.family].drop_in is None}


@pytest.mark.parametrize("kind", WITHOUT_DROP_IN.values())
def test_a_family_without_a_drop_in_is_refused_and_can_be_hooked(kind: str) -> None:
    if not kinds()[kind].exists or mishformer_lens.variants[kinds()[kind].family] is None:
        pytest.skip("this release does not have the family")
    hf_model = make_model(Case(kind))
    with pytest.raises(UnsupportedModelError, match=r"It serves .*gpt2.*mishformer_lens\.instrument\(model\)"):
        HookedTransformer(hf_model)
    assert all(type(module).__module__.partition(".")[0] != "mishformer_lens" for module in hf_model.modules())
    with mishformer_lens.instrument(hf_model).caching(["blocks.1.attn.hook_pattern"]) as cache:
        hf_model(make_tokens())
    assert cache["blocks.1.attn.hook_pattern"].shape[1] == N_HEADS


# Where TransformerLens's own has other names, or none.
OTHER_FORMS: dict[str, tuple[str, dict[str, Any], str]] = {
    "cross-attention": ("gpt2", {"add_cross_attention": True}, "blocks.0.cross_attn.hook_z"),
    "its norms in the residual stream": ("opt", {"do_layer_norm_before": False}, "blocks.0.ln1.hook_scale"),
    "no norm behind its blocks": ("opt", {"_remove_final_layer_norm": True}, "blocks.1.ln2.hook_scale"),
}


@pytest.mark.parametrize("form", OTHER_FORMS)
def test_a_form_of_block_that_the_drop_in_has_no_names_for_is_refused_and_can_be_hooked(form: str) -> None:
    kind, changes, name = OTHER_FORMS[form]
    instrumentation = mishformer_lens.instrument(make_model(Case(kind), **changes))
    with pytest.raises(UnsupportedModelError, match=rf"{form}.*mishformer_lens\.instrument\(model\)"):
        refuse_other_forms(instrumentation)
    with pytest.raises(UnsupportedModelError):
        HookedTransformer(make_model(Case(kind), **changes))
    assert name in instrumentation.hook_points
    refuse_other_forms(mishformer_lens.instrument(make_model(Case(kind))))


def test_options(saved: Path) -> None:
    model = HookedTransformer.from_pretrained(
        saved, device="cpu", dtype="bfloat16", default_prepend_bos=False, first_n_layers=1, attn_implementation="eager"
    )
    assert model.cfg.dtype == torch.bfloat16
    assert model.W_E.dtype == torch.bfloat16
    assert len(model.blocks) == model.cfg.n_layers == 1
    assert model.cfg.default_prepend_bos is False
    with pytest.raises(ForwardArgumentsError, match="dtype is 'int4'"):
        HookedTransformer.from_pretrained(saved, dtype="int4")
    processed = HookedTransformer.from_pretrained(
        saved, device="cpu", fold_ln=True, center_unembed=True, attn_implementation="eager"
    )
    assert processed.cfg.normalization_type == "LNPre"
    processed.undo_processing()
    plain = transformers.AutoModelForCausalLM.from_pretrained(saved, attn_implementation="eager")
    assert torch.equal(processed(tokens()), plain(tokens()).logits)


def save_weights_alone(kind: str, folder: Path) -> Any:
    """Save a checkpoint, take its configuration away and return that."""
    hf_model = make_hf_model(kind)
    hf_model.save_pretrained(folder)
    (folder / "config.json").unlink()
    return hf_model.config


def test_weights_alone_with_a_configuration(kind: str, tmp_path: Path) -> None:
    config = save_weights_alone(kind, tmp_path)
    expected = make_hf_model(kind)(tokens()).logits
    model = HookedTransformer.from_pretrained(tmp_path, config=config, device="cpu", attn_implementation="eager")
    assert torch.equal(model(tokens()), expected)
    with pytest.raises(CheckpointNotFoundError, match=r"no config\.json.*pass config="):
        HookedTransformer.from_pretrained(tmp_path, device="cpu")


def test_first_layers_of_a_given_configuration_which_stays_as_it_was(kind: str, tmp_path: Path) -> None:
    config = save_weights_alone(kind, tmp_path)
    options: dict[str, Any] = {"first_n_layers": 1, "device": "cpu", "attn_implementation": "eager"}
    model = HookedTransformer.from_pretrained(tmp_path, config=config, **options)
    assert len(model.blocks) == model.cfg.n_layers == 1
    assert config.num_hidden_layers == 2
    make_hf_model(kind).config.save_pretrained(tmp_path / "configuration")
    named = HookedTransformer.from_pretrained(tmp_path, config=str(tmp_path / "configuration"), **options)
    # In some releases a GPT-NeoX configuration does not survive being saved.
    saved = transformers.AutoConfig.from_pretrained(tmp_path / "configuration")
    same = HookedTransformer.from_pretrained(tmp_path, config=saved, **options)
    assert torch.equal(named(tokens()), same(tokens()))
    assert len(named.blocks) == 1


def test_a_folder_inside_the_folder(kind: str, tokenizer: Any, tmp_path: Path) -> None:
    make_hf_model(kind).save_pretrained(tmp_path / "inner")
    tokenizer.save_pretrained(tmp_path / "inner")
    model = HookedTransformer.from_pretrained(tmp_path, subfolder="inner", device="cpu", attn_implementation="eager")
    plain = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "inner", attn_implementation="eager")
    assert torch.equal(model(tokens()), plain(tokens()).logits)
    assert model.to_tokens(TEXTS).shape[0] == 2
    with pytest.raises(CheckpointNotFoundError, match=r"other has no config\.json"):
        HookedTransformer.from_pretrained(tmp_path, subfolder="other", device="cpu")
    with pytest.raises(CheckpointNotFoundError, match=r"no config\.json"):
        HookedTransformer.from_pretrained(tmp_path, device="cpu")


def test_arguments_for_files_reach_model_configuration_and_tokenizer(
    kind: str, tokenizer: Any, monkeypatch: Any
) -> None:
    given: dict[str, Any] = {
        "revision": "main",
        "token": "abc",
        "cache_dir": "somewhere",
        "local_files_only": True,
        "subfolder": "inner",
        "force_download": False,
    }
    asked: dict[str, dict[str, Any]] = {}

    def loader(name: str, result: Any) -> Any:
        def load(_: str, **options: Any) -> Any:
            asked[name] = options
            return result

        return load

    hf_model = make_hf_model(kind)
    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", loader("model", hf_model))
    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", loader("config", hf_model.config))
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", loader("tokenizer", tokenizer))
    HookedTransformer.from_pretrained(
        "somebody/a-model", device="cpu", first_n_layers=2, attn_implementation="eager", **given
    )
    for name in ("model", "config", "tokenizer"):
        assert {key: asked[name].get(key) for key in given} == given, name
    assert asked["model"]["attn_implementation"] == "eager"
    assert "attn_implementation" not in asked["tokenizer"]


def test_a_revision_beside_a_training_checkpoint(tokenizer: Any) -> None:
    with pytest.raises(ForwardArgumentsError, match="revision='main' is given beside"):
        HookedTransformer.from_pretrained("pythia-70m", checkpoint_value=1000, revision="main", tokenizer=tokenizer)


def test_a_quantized_model_stays_where_it_was_put(kind: str, tokenizer: Any, monkeypatch: Any) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise ValueError("`.to` is not supported for quantized models")

    def load(_: str, **options: Any) -> Any:
        hf_model = make_hf_model(kind)
        hf_model.hf_quantizer = object()  # as transformers notes it
        hf_model.to = refuse
        return hf_model

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", load)
    model = HookedTransformer.from_pretrained("somebody/a-model", device="cpu", tokenizer=tokenizer)
    assert model.cfg.device == torch.device("cpu")


def test_a_given_model_is_used_as_it_is(kind: str, tokenizer: Any) -> None:
    hf_model = make_hf_model(kind, dtype=torch.bfloat16)
    model = HookedTransformer.from_pretrained("gpt2", hf_model=hf_model, tokenizer=tokenizer)
    assert model.hf_model is hf_model
    assert model.cfg.dtype == torch.bfloat16
    again = HookedTransformer(hf_model)
    assert again.instrumentation is model.instrumentation


def test_no_processing_is_said_once(saved: Path, caplog: pytest.LogCaptureFixture, monkeypatch: Any) -> None:
    monkeypatch.setattr(loading, "_told_about_processing", False)
    with caplog.at_level(logging.WARNING, "mishformer_lens"):
        HookedTransformer.from_pretrained(saved, device="cpu")
        HookedTransformer.from_pretrained(saved, device="cpu")
    assert sum("no layer norm is folded" in record.message for record in caplog.records) == 1


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "~/nowhere-at-all", "some/folder/deep"])
def test_a_folder_that_is_not_there(name: str) -> None:
    with pytest.raises(CheckpointNotFoundError, match="there is no folder"):
        HookedTransformer.from_pretrained(name)


def test_a_folder_without_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFoundError, match=r"no config\.json"):
        HookedTransformer.from_pretrained(tmp_path)


def test_a_folder_without_a_tokenizer(kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_hf_model(kind).save_pretrained(tmp_path)
    with caplog.at_level(logging.WARNING, "mishformer_lens"):
        model = HookedTransformer.from_pretrained(tmp_path, device="cpu")
    assert model.tokenizer is None
    assert "no tokenizer found" in caplog.text


def test_what_is_no_model_of_a_known_family() -> None:
    bert = transformers.BertConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, vocab_size=30
    )
    with pytest.raises(UnsupportedModelError, match=r"gpt2 .*, gpt_neox"):
        HookedTransformer(transformers.BertModel(bert))
    with pytest.raises(UnsupportedModelError, match="no language-modelling head"):
        HookedTransformer(transformers.GPT2Model(make_hf_model("gpt2").config))
    with pytest.raises(UnsupportedModelError, match="from_pretrained"):
        HookedTransformer("gpt2")
    with pytest.raises(UnsupportedModelError, match="from a configuration"):
        HookedTransformer({"n_layers": 2})


def test_short_names() -> None:
    for short, name in {
        "gpt2-small": "gpt2",
        "gpt2-xl": "gpt2-xl",
        "pythia-70m": "EleutherAI/pythia-70m",
        "pythia-125m-deduped": "EleutherAI/pythia-160m-deduped",
        "EleutherAI/pythia-2.8b": "EleutherAI/pythia-2.8b",
        "stanford-gpt2-small-a": "stanford-crfm/alias-gpt2-small-x21",
        "./pythia-70m": "./pythia-70m",
        "somebody/gpt2-small": "somebody/gpt2-small",
    }.items():
        assert hugging_face_name(short) == name


@needs_reference
def test_short_names_are_transformer_lens_s() -> None:
    from transformer_lens import loading_from_pretrained as theirs

    families = ("gpt2", "pythia", "gpt-neox", "stanford-crfm/")
    for official in theirs.OFFICIAL_MODEL_NAMES:
        if not any(each in official.lower() for each in families) or "santacoder" in official:
            continue
        for alias in (official, *theirs.MODEL_ALIASES.get(official, [])):
            assert hugging_face_name(alias) == theirs.get_official_model_name(alias), alias
        if official.startswith(("stanford-crfm/", "EleutherAI/pythia")):
            assert list(checkpoint_steps(official)) == list(theirs.get_checkpoint_labels(official)[0])


def test_checkpoints_along_a_training_run() -> None:
    assert checkpoint_revision("pythia-70m", None, 512) == (512, "step512")
    assert checkpoint_revision("pythia-70m", 0, None) == (0, "step0")
    assert checkpoint_revision("EleutherAI/pythia-70m", -1, 7) == (143000, "step143000")
    assert checkpoint_revision("stanford-gpt2-small-a", None, 1000) == (1000, "checkpoint-1000")
    with pytest.raises(CheckpointNotFoundError, match="nearest is of step 512"):
        checkpoint_revision("pythia-70m", None, 600)
    with pytest.raises(CheckpointNotFoundError, match="154 checkpoints"):
        checkpoint_revision("pythia-70m", 500, None)
    with pytest.raises(CheckpointNotFoundError, match="revision="):
        checkpoint_revision("gpt2", 0, None)


def test_a_checkpoint_s_revision_is_what_hugging_face_is_asked_for(kind: str, tokenizer: Any, monkeypatch: Any) -> None:
    asked = {}

    def load(name: str, **options: Any) -> Any:
        asked[name] = options["revision"]
        return make_hf_model(kind)

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", load)
    model = HookedTransformer.from_pretrained("pythia-70m", checkpoint_value=1000, device="cpu", tokenizer=tokenizer)
    assert asked == {"EleutherAI/pythia-70m": "step1000"}
    assert model.cfg.from_checkpoint
    assert model.cfg.checkpoint_value == 1000


@needs_reference
def test_the_configuration_has_every_field_of_transformer_lens(kind: str) -> None:
    theirs = make_reference(kind).cfg
    ours = make_model_of(kind).cfg
    own = {field.name for field in dataclasses.fields(ours)}
    # Two are of later releases, for families that came later.
    assert own - {field.name for field in dataclasses.fields(theirs)} <= {"rotary_base_local", "use_qk_norm"}
    assert {field.name for field in dataclasses.fields(theirs)} <= own
    expected_to_differ = {"model_name", "original_architecture", "initializer_range", "init_weights"}
    expected_to_differ |= {"tie_word_embeddings", "device", "attn_scale", "rotary_base"}
    for name, value in theirs.to_dict().items():
        if name not in expected_to_differ:
            assert getattr(ours, name) == value, name
    assert float(ours.attn_scale) == pytest.approx(float(theirs.attn_scale))
    assert ours.rotary_base == theirs.rotary_base
    assert str(ours.device) == str(theirs.device)


def test_the_configuration(model: HookedTransformer) -> None:
    cfg = model.cfg
    assert isinstance(cfg, HookedTransformerConfig)
    assert (cfg.n_layers, cfg.n_heads, cfg.d_head, cfg.d_model, cfg.d_mlp, cfg.n_ctx) == (2, 4, 8, 32, 48, 64)
    assert cfg.d_vocab == cfg.d_vocab_out == 300
    assert cfg.to_dict()["eps"] == 1e-5
    assert cfg.is_layer_norm_activation() is False
    if cfg.positional_embedding_type == "rotary":
        assert cfg.rotary_dim == 4
        assert cfg.rotary_base == 10000


def test_moving_and_converting(model: HookedTransformer) -> None:
    # Not float64: in 4.44 GPT-NeoX itself cannot make its mask then.
    assert model.to(torch.bfloat16) is model
    assert model.cfg.dtype == torch.bfloat16 == model.W_E.dtype
    assert model(tokens()).dtype == torch.bfloat16
    assert model.cpu().cfg.device == torch.device("cpu")
    assert model.to("cpu", print_details=False) is model
    model.move_model_modules_to_device()
    model.train()
    assert model.hf_model.training
    assert not model.eval().hf_model.training


@pytest.mark.skipif(torch.cuda.is_available(), reason="this is about machines without a GPU")
def test_a_device_that_is_not_there(model: HookedTransformer) -> None:
    with pytest.raises((RuntimeError, AssertionError), match=r"(?i)cuda|nvidia"):
        model.cuda()
    assert model.cfg.device == torch.device("cpu")


def test_sampling_a_datapoint_from_a_dataset_of_ones_own(model: HookedTransformer) -> None:
    model.dataset = [{"text": TEXTS[0]}]
    assert model.sample_datapoint() == TEXTS[0]
    assert torch.equal(model.sample_datapoint(tokenize=True, prepend_bos=False), model.to_tokens(TEXTS[0], False))


def test_where_a_model_is_put(saved: Path) -> None:
    kept = HookedTransformer.from_pretrained(saved, move_to_device=False, device="meta")
    assert kept.W_E.device.type == "cpu"
    given = HookedTransformer.from_pretrained(saved, hf_model=kept.hf_model, device="cpu", tokenizer=kept.tokenizer)
    assert given.hf_model is kept.hf_model
    # accelerate spreads it over the devices that there are.
    spread = HookedTransformer.from_pretrained(saved, n_devices=2)
    assert torch.equal(spread(tokens()), kept(tokens()))


def test_hooking_leaves_every_part_in_the_mode_it_is_in(kind: str) -> None:
    hf_model = make_hf_model(kind).train()
    frozen = next(hf_model.base_model.children()).eval()
    model = HookedTransformer(hf_model)
    assert model.training
    assert not frozen.training
