"""``mishformer-lens demo``: the whole way on a checkpoint, and on what is none."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

import mishformer_lens.demo
from mishformer_lens.cli.demo import demo as demo_command
from mishformer_lens.demo import measuring
from tests.cli.conftest import Command
from tests.models import D_VOCAB, MAX_POS, N_HEADS, N_LAYERS, Case, make_model

KINDS = ("gpt2", "gpt_neox", "gpt_neox_sequential")
TEXT = " ".join(f"w{n % 9}" for n in range(30))


def save_checkpoint(kind: str, folder: Path) -> Path:
    """A tiny model and a tokenizer of single words, as ``save_pretrained`` writes them."""
    make_model(Case(kind)).to("cpu").save_pretrained(folder)
    words = Tokenizer(models.WordLevel({f"w{n}": n for n in range(D_VOCAB)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, unk_token="w0").save_pretrained(folder)
    return folder


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return save_checkpoint("gpt_neox", tmp_path / "checkpoint")


def eager_model(checkpoint: Path) -> Any:
    loaded = transformers.AutoModelForCausalLM.from_pretrained(checkpoint, attn_implementation="eager")
    return loaded.eval()


@pytest.mark.parametrize("kind", KINDS)
def test_any_checkpoint_folder(command: Command, tmp_path: Path, kind: str) -> None:
    folder = save_checkpoint(kind, tmp_path / kind)
    finished = command("demo", "--model", str(folder), "--text", TEXT, "--out", str(tmp_path / "out"), "--json")
    assert finished.code == 0
    result = finished.json
    assert result["family"] == kind.removesuffix("_sequential")
    assert result["differing"] == []
    assert len(result["compared"]) == 2 + (N_LAYERS + 1) + N_LAYERS
    assert result["tokens"] == TEXT.split()
    assert result["hook_points"]["blocks.1.attn.hook_pattern"] == [1, N_HEADS, 30, 30]
    assert ("hook_pos_embed" in result["hook_points"]) == (kind == "gpt2")
    assert all(result["hook_points"].values())
    assert len(result["scores"]) == N_LAYERS * N_HEADS
    scores = [head["score"] for head in result["scores"]]
    assert scores == sorted(scores, reverse=True)
    assert all(each["whole"] != each["without"] for each in result["ablations"])


def test_the_shipped_checkpoint_has_an_induction_head(command: Command, tmp_path: Path) -> None:
    result = command("demo", "--out", str(tmp_path / "out"), "--json").json
    assert result["differing"] == []
    assert result["scores"][0]["score"] > 0.5
    repeated = result["ablations"][0]
    assert repeated["without"] > repeated["whole"] + 1


def test_the_story_that_it_tells(command: Command, checkpoint: Path, tmp_path: Path) -> None:
    out = command("demo", "--model", str(checkpoint), "--text", TEXT, "--out", str(tmp_path / "out")).out
    for words in ("Bit-identical", "gpt_neox v", "hook_rot_q", "induction score", "left out by hook_z"):
        assert words in out


@pytest.mark.parametrize("bos_token", [None, 5])
def test_scores_are_those_of_the_models_own_attention(checkpoint: Path, bos_token: int | None) -> None:
    model = eager_model(checkpoint)
    tokens, half = measuring.repeated_tokens(D_VOCAB, MAX_POS, bos_token)
    start = 0 if bos_token is None else 1
    assert half == (MAX_POS - start) // 2
    assert tokens[:, :start].flatten().tolist() == [bos_token] * start * len(tokens)
    assert torch.equal(tokens[:, start : start + half], tokens[:, start + half :])
    with torch.no_grad():
        attentions = model(tokens, output_attentions=True).attentions
    expected = {
        (layer, head): sum(
            float(attentions[layer][row, head, start + half + at, start + at + 1])
            for row in range(len(tokens))
            for at in range(half)
        )
        / (half * len(tokens))
        for layer in range(N_LAYERS)
        for head in range(N_HEADS)
    }
    found = {(head.layer, head.head): head.score for head in measuring.induction_scores(list(attentions), half)}
    assert found == pytest.approx(expected, abs=1e-6)


def test_ablation_is_what_a_model_without_that_heads_weights_does(
    command: Command, checkpoint: Path, tmp_path: Path
) -> None:
    arguments = ["--model", str(checkpoint), "--text", TEXT, "--out", str(tmp_path / "out"), "--json"]
    result = command("demo", *arguments).json
    best = result["scores"][0]
    model = eager_model(checkpoint)
    projection = model.gpt_neox.layers[best["layer"]].attention.dense.weight
    size = projection.shape[1] // N_HEADS
    with torch.no_grad():
        projection[:, best["head"] * size : (best["head"] + 1) * size] = 0
    losses = {(each["measured_on"], each["head"]): each for each in result["ablations"]}
    name = f"{best['layer']}.{best['head']}"
    tokens = torch.tensor([[int(word[1:]) for word in TEXT.split()]])
    with torch.no_grad():
        without = float(model(tokens, labels=tokens).loss)
    assert losses["the text", name]["without"] == pytest.approx(without, abs=1e-5)
    assert losses["the text", name]["whole"] != pytest.approx(without, abs=1e-5)


def test_pictures(command: Command, checkpoint: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra `demo` is not installed")
    pytest.importorskip("plotly", reason="the extra `demo` is not installed")
    out = tmp_path / "pictures"
    result = command("demo", "--model", str(checkpoint), "--text", TEXT, "--out", str(out), "--json").json
    assert result["pictures"] == [str(out / "attention.png"), str(out / "attention.html")]
    assert (out / "attention.png").read_bytes().startswith(b"\x89PNG")
    page = (out / "attention.html").read_text()
    assert "src=" not in page.split("</script>")[-1]
    assert "induction score" in page


def test_without_the_extra_it_says_what_to_install(
    command: Command, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "mishformer_lens.demo.drawing", raising=False)
    monkeypatch.delattr(mishformer_lens.demo, "drawing", raising=False)
    monkeypatch.setitem(sys.modules, "plotly", None)
    monkeypatch.setitem(sys.modules, "plotly.graph_objects", None)
    out = tmp_path / "out"
    finished = command("demo", "--model", str(checkpoint), "--text", TEXT, "--out", str(out))
    assert finished.code == 0
    assert 'pip install "mishformer-lens[demo]"' in finished.out
    assert not out.exists()


def test_one_changed_bit_is_found(
    command: Command, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = measuring.everything, []

    def changed_once(model: Any, tokens: torch.Tensor) -> dict[str, torch.Tensor]:
        calls.append(model)
        results = real(model, tokens)
        if len(calls) == 2:
            flat = results["logits"].view(-1)
            flat[7] = torch.nextafter(flat[7], flat[7] + 1)
        return results

    monkeypatch.setattr(measuring, "everything", changed_once)
    finished = command("demo", "--model", str(checkpoint), "--text", TEXT, "--out", str(tmp_path / "out"))
    assert finished.code == 1
    assert "These outputs changed: logits" in finished.out
    assert "Bit-identical" not in finished.out


def test_what_cannot_be_shown(command: Command, checkpoint: Path, tmp_path: Path) -> None:
    absent = command("demo", "--model", str(tmp_path / "absent"))
    assert (absent.code, "no checkpoint with a tokenizer" in absent.err) == (2, True)
    short = command("demo", "--model", str(checkpoint), "--text", "w1", "--out", str(tmp_path))
    assert (short.code, "Give a longer --text" in short.err) == (2, True)
    bert = transformers.BertConfig(
        vocab_size=D_VOCAB,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
        is_decoder=True,
    )
    transformers.BertLMHeadModel(bert).save_pretrained(checkpoint)
    other = command("demo", "--model", str(checkpoint), "--text", TEXT, "--out", str(tmp_path))
    assert (other.code, "is of no family that has hook points" in other.err) == (2, True)


def test_the_default_folder_is_ignored_by_git() -> None:
    default = next(option.default for option in demo_command.params if option.name == "out")
    ignored = Path(__file__).parents[2] / ".gitignore"
    assert f"/{default}/" in ignored.read_text().splitlines()
