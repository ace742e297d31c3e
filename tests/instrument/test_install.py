"""Hooking every model that is created from now on."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn
from transformers.models.gpt2.modeling_gpt2 import GPT2Block

import mishformer_lens
from mishformer_lens.errors import FamilyNotInReleaseError, NotInstrumentedError, UnsupportedModelError
from mishformer_lens.patchers import FAMILIES
from tests.models import Case, make_config, make_model, make_tokens
from tests.recording import assert_same, hooked, recorded


@pytest.fixture
def installed() -> Iterator[None]:
    mishformer_lens.install()
    yield
    mishformer_lens.uninstall()


def foreign_config() -> Any:
    """A configuration of which :class:`Foreign` makes a model that has no place for hook points."""
    return make_config("gpt2")


class Foreign(transformers.GPT2Model):
    """A user's model, one of whose parts is of another class."""

    def _init_weights(self, module: Any) -> None:
        """Leave the weights as they are."""

    def post_init(self) -> None:
        self.ln_f = nn.Identity()


def is_installed() -> bool:
    """Whether a model that cannot be hooked is refused when it is created."""
    try:
        Foreign(foreign_config())
    except UnsupportedModelError:
        return True
    return False


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_every_way_of_creating_a_model_gives_a_hooked_one(kind: str, attention: str, tmp_path: Path) -> None:
    config = make_config(kind, attention)
    made = make_model(Case(kind, attention))
    made.save_pretrained(tmp_path)
    models = [
        made,
        transformers.AutoModelForCausalLM.from_config(config, attn_implementation=attention),
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation=attention),
        transformers.AutoModel.from_config(config, attn_implementation=attention),
        transformers.AutoModelForSequenceClassification.from_config(config, attn_implementation=attention),
    ]
    for model in models:
        instrumentation = mishformer_lens.instrument(model)
        assert instrumentation.model is model.base_model
        with recorded(instrumentation.hook_points, ["blocks.1.attn.hook_z"]) as values:
            model(make_tokens().to(model.device))
        assert len(values["blocks.1.attn.hook_z"]) == 1


def test_a_loaded_model_computes_what_it_did(kind: str, tmp_path: Path) -> None:
    make_model(Case(kind)).save_pretrained(tmp_path)
    plain = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager").eval()
    mishformer_lens.install()
    try:
        loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager")
    finally:
        mishformer_lens.uninstall()
    loaded = loaded.eval()
    tokens = make_tokens().to(plain.device)
    with torch.no_grad():
        expected = plain(tokens).logits
        assert_same(loaded(tokens).logits, expected)
        instrumentation = mishformer_lens.instrument(loaded)
        with hooked(instrumentation.hook_points, {"blocks.0.hook_mlp_out": lambda activation, hook: activation * 0}):
            assert not torch.equal(loaded(tokens).logits, expected)


def test_a_model_that_cannot_be_hooked_is_refused_when_it_is_made() -> None:
    assert not is_installed()
    mishformer_lens.install()
    try:
        with pytest.raises(UnsupportedModelError, match="Identity stands at ln_f"):
            Foreign(foreign_config())
    finally:
        mishformer_lens.uninstall()
    assert not is_installed()


def test_a_wrapper_that_is_put_on_while_installed_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    # What is set first is what the test leaves behind.
    monkeypatch.setattr(transformers.GPT2Model, "__init__", transformers.GPT2Model.__init__)
    mishformer_lens.install()
    ours, made = transformers.GPT2Model.__init__, []

    def theirs(self: Any, *args: Any, **kwargs: Any) -> None:
        ours(self, *args, **kwargs)
        made.append(self)

    monkeypatch.setattr(transformers.GPT2Model, "__init__", theirs)
    mishformer_lens.uninstall()
    assert transformers.GPT2Model.__init__ is theirs
    assert not is_installed()
    assert len(made) == 1
    mishformer_lens.install()
    assert is_installed()
    mishformer_lens.uninstall()
    assert transformers.GPT2Model.__init__ is theirs
    assert not is_installed()


def test_parts_that_a_user_s_model_puts_in_afterwards_are_hooked() -> None:
    class MyBlock(GPT2Block):
        pass

    class MyModel(transformers.GPT2Model):
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.h = nn.ModuleList([MyBlock(config, layer_idx=layer) for layer in range(3)])
            self.post_init()

    mishformer_lens.install()
    try:
        model = MyModel(make_config("gpt2", n_layer=3)).eval()
    finally:
        mishformer_lens.uninstall()
    instrumentation = mishformer_lens.instrument(model)
    with instrumentation.caching() as cache:
        model(make_tokens().cpu(), use_cache=False)
    assert "blocks.2.hook_resid_post" in cache
    assert list(cache) == instrumentation.unflagged_names
    assert all(type(block) is MyBlock for block in model.h)


def test_a_model_made_while_installed_gives_its_hook_points_back(kind: str) -> None:
    mishformer_lens.install()
    model = make_model(Case(kind))
    mishformer_lens.uninstall()
    mishformer_lens.instrument(model).remove()
    plain = make_model(Case(kind))
    assert [type(module) for module in model.modules()] == [type(module) for module in plain.modules()]
    assert [list(vars(module)) for module in model.modules()] == [list(vars(module)) for module in plain.modules()]


def test_installing_twice_is_installing_once() -> None:
    mishformer_lens.install()
    mishformer_lens.install()
    mishformer_lens.uninstall()
    assert not is_installed()
    with pytest.raises(NotInstrumentedError):
        mishformer_lens.uninstall()


def test_uninstalling_what_is_not_installed_is_refused() -> None:
    with pytest.raises(NotInstrumentedError, match=r"nothing is installed: call mishformer_lens.install\(\) first"):
        mishformer_lens.uninstall()


def test_uninstall_gives_the_classes_back() -> None:
    classes = [transformers.GPT2Model, transformers.GPTNeoXModel]
    before = [cls.__init__ for cls in classes]
    mishformer_lens.install()
    assert all(cls.__init__ is not old for cls, old in zip(classes, before, strict=True))
    assert all(cls.__init__.__wrapped__ is old for cls, old in zip(classes, before, strict=True))
    mishformer_lens.uninstall()
    assert [cls.__init__ for cls in classes] == before


@pytest.mark.usefixtures("installed")
def test_other_models_are_left_alone() -> None:
    config = transformers.BertConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=48
    )
    transformers.BertModel(config)


def without(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Let the release lack these families."""
    known = {
        name: dataclasses.replace(family, name=f"{name}_of_the_future", first_release="99.1")
        if name in names
        else family
        for name, family in FAMILIES.items()
    }
    monkeypatch.setattr("mishformer_lens.installation.FAMILIES", known)


def test_families_that_the_release_lacks_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "llama", "gpt_neox")
    mishformer_lens.install()
    try:
        assert is_installed()
    finally:
        mishformer_lens.uninstall()


def test_a_release_without_any_family_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, *FAMILIES)
    with pytest.raises(FamilyNotInReleaseError, match=r'pip install "transformers>=99\.1"'):
        mishformer_lens.install()
    with pytest.raises(NotInstrumentedError):
        mishformer_lens.uninstall()
