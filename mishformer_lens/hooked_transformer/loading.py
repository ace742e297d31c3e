"""Loading a HuggingFace model by TransformerLens's arguments. No weight is copied."""

import copy
import logging
import re
from pathlib import Path
from typing import Any, Final, Self

import torch
from torch import nn

from mishformer_lens.errors import CheckpointNotFoundError, ForwardArgumentsError
from mishformer_lens.hooked_transformer.names import checkpoint_revision, hugging_face_name
from mishformer_lens.hooked_transformer.processing import Processing
from mishformer_lens.hooked_transformer.tokens import PaddingSide
from mishformer_lens.hooked_transformer.transformer_lens_compat import utils

logger = logging.getLogger("mishformer_lens")

_DTYPES: Final = {
    "float32": torch.float32,
    "fp32": torch.float32,
    "float16": torch.float16,
    "fp16": torch.float16,
    "bfloat16": torch.bfloat16,
    "bf16": torch.bfloat16,
    "float64": torch.float64,
}

# Arguments that decide which files are read, for the tokenizer as well as for the model.
_SHARED_WITH_TOKENIZER = (
    "revision",
    "cache_dir",
    "token",
    "local_files_only",
    "trust_remote_code",
    "subfolder",
    "force_download",
    "proxies",
)

# Of a checkpoint, or of an adapter on one, which transformers loads with peft.
_CONFIGURATIONS = ("config.json", "adapter_config.json")

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json")

_told_about_processing = False


class Loading(Processing):
    """``from_pretrained``."""

    @classmethod
    def from_pretrained(
        cls,
        model_name: str | Path,
        fold_ln: bool = False,
        center_writing_weights: bool = False,
        center_unembed: bool = False,
        refactor_factored_attn_matrices: bool = False,
        checkpoint_index: int | None = None,
        checkpoint_value: int | None = None,
        hf_model: nn.Module | None = None,
        device: str | torch.device | None = None,
        n_devices: int = 1,
        tokenizer: Any | None = None,
        move_to_device: bool = True,
        fold_value_biases: bool = False,
        default_prepend_bos: bool | None = None,
        default_padding_side: PaddingSide = "right",
        dtype: str | torch.dtype = "float32",
        first_n_layers: int | None = None,
        **from_pretrained_kwargs: Any,
    ) -> Self:
        """Load a model and put TransformerLens's hook points on it.

        Unlike TransformerLens's, this loads the weights **as they are**: the four processing arguments are False unless
        asked for, so that every output bit is HuggingFace's.

        Args:
            model_name: a folder with a checkpoint, HuggingFace's name of a model, or TransformerLens's short one.
            fold_ln, center_writing_weights, center_unembed, fold_value_biases, refactor_factored_attn_matrices:
                see :meth:`process_weights_`. Done on HuggingFace's own weights; :meth:`undo_processing` takes it back.
            checkpoint_index, checkpoint_value: of Pythia and Stanford CRFM models, a checkpoint along the training.
            hf_model: a model to use instead of loading one. It is hooked in place.
            device: where to put the model; by default a GPU where there is one, but a given ``hf_model`` stays.
            n_devices: 1, or more to let accelerate spread the layers (``device_map="auto"``).
            tokenizer: a tokenizer to use instead of loading one.
            move_to_device: whether ``device`` counts.
            default_prepend_bos: whether text gets a BOS token; None: yes.
            default_padding_side: ``left`` or ``right``.
            dtype: of the weights, by name or as a ``torch.dtype``. A given ``hf_model`` keeps its own.
            first_n_layers: load only so many layers.
            from_pretrained_kwargs: anything else that HuggingFace's ``AutoModelForCausalLM.from_pretrained`` takes.

        Raises:
            CheckpointNotFoundError: there is no such folder, or no such checkpoint.
            ForwardArgumentsError: an unknown ``dtype``, or a checkpoint along the training and a ``revision``.
            UnsupportedModelError: the model is of another family.
            ResolutionError: there is no proven variant for the installed transformers.
        """
        name = hugging_face_name(str(model_name))
        options = dict(from_pretrained_kwargs)
        step = None
        if checkpoint_index is not None or checkpoint_value is not None:
            if "revision" in options:
                raise ForwardArgumentsError(
                    f"revision={options['revision']!r} is given beside a training checkpoint, which is a revision too. "
                    "Leave one of the two out."
                )
            step, options["revision"] = checkpoint_revision(name, checkpoint_index, checkpoint_value)
        if hf_model is None or tokenizer is None:
            _check_folder(
                name,
                options.get("subfolder", ""),
                needed=hf_model is None and not options.keys() & {"config", "gguf_file"},
            )
        if hf_model is None:
            hf_model = _load_model(name, options, dtype, first_n_layers, n_devices)
            # Those that are dispatched or quantized were put where they belong; some refuse to be moved.
            placed = n_devices > 1 or "device_map" in options or vars(hf_model).get("hf_quantizer") is not None
            if move_to_device and not placed:
                hf_model.to(device or utils.get_device())
        elif device is not None and move_to_device:
            hf_model.to(device)
        if tokenizer is None:
            tokenizer = _load_tokenizer(name, options)
        model = cls(hf_model, tokenizer, default_padding_side=default_padding_side)
        if default_prepend_bos is not None:
            model.cfg.default_prepend_bos = default_prepend_bos
        model.cfg.model_name = name.rpartition("/")[2]
        model.cfg.tokenizer_name = name
        if step is not None:
            model.cfg.from_checkpoint, model.cfg.checkpoint_label_type = True, "step"
            model.cfg.checkpoint_index, model.cfg.checkpoint_value = checkpoint_index, step
        asked = fold_ln or center_writing_weights or center_unembed or fold_value_biases
        if asked or refactor_factored_attn_matrices:
            model.process_weights_(
                fold_ln=fold_ln,
                center_writing_weights=center_writing_weights,
                center_unembed=center_unembed,
                refactor_factored_attn_matrices=refactor_factored_attn_matrices,
                fold_value_biases=fold_value_biases,
            )
        else:
            _tell_about_processing()
        return model

    @classmethod
    def from_pretrained_no_processing(
        cls, model_name: str | Path, dtype: str | torch.dtype = torch.float32, **kwargs: Any
    ) -> Self:
        """:meth:`from_pretrained`, whose default it is; here for those who want to say so."""
        return cls.from_pretrained(model_name, dtype=dtype, **kwargs)


def _tell_about_processing() -> None:
    global _told_about_processing
    if not _told_about_processing:
        _told_about_processing = True
        logger.warning(
            "Weights are used as HuggingFace has them: no layer norm is folded, nothing is centred. TransformerLens "
            "2.x does so by default; pass fold_ln=True, center_writing_weights=True, center_unembed=True and "
            "fold_value_biases=True to from_pretrained for its numbers. (Said once.)"
        )


def _check_folder(name: str, subfolder: str, needed: bool) -> None:
    """Refuse a folder that is not there, before HuggingFace takes its name for one on its hub.

    Args:
        needed: whether there must be a configuration in it.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        inner = path / subfolder
        if needed and not any((inner / file).is_file() for file in _CONFIGURATIONS):
            raise CheckpointNotFoundError(
                f"{inner} has no config.json, so it is no checkpoint of transformers. Save one there: "
                "model.save_pretrained(folder), tokenizer.save_pretrained(folder); or pass config= for weights alone."
            )
    elif re.match(r"[.~/\\]|[A-Za-z]:[/\\]", name) or name.count("/") > 1:
        raise CheckpointNotFoundError(
            f"there is no folder {path}. Pass a folder that has config.json, or a model's name, as 'gpt2' or "
            "'EleutherAI/pythia-70m'."
        )


def _load_model(
    name: str, options: dict[str, Any], dtype: str | torch.dtype, first_n_layers: int | None, n_devices: int
) -> nn.Module:
    from transformers import AutoConfig, AutoModelForCausalLM

    if isinstance(dtype, str) and dtype not in _DTYPES:
        raise ForwardArgumentsError(f"dtype is {dtype!r}; it must be a torch.dtype or one of {', '.join(_DTYPES)}.")
    options = {"torch_dtype": _DTYPES[dtype] if isinstance(dtype, str) else dtype} | options
    if n_devices > 1:
        options.setdefault("device_map", "auto")
    if first_n_layers is not None:
        config = options.get("config")
        if config is None or isinstance(config, str | Path):
            shared = {key: options[key] for key in _SHARED_WITH_TOKENIZER if key in options}
            config = AutoConfig.from_pretrained(name if config is None else config, **shared)
        # A copy: the one that was given is not this model's alone.
        options["config"] = copy.deepcopy(config)
        options["config"].num_hidden_layers = first_n_layers
    model: nn.Module = AutoModelForCausalLM.from_pretrained(name, **options)
    return model


def _load_tokenizer(name: str, options: dict[str, Any]) -> Any | None:
    from transformers import AutoTokenizer

    folder = Path(name).expanduser()
    inner = folder / options.get("subfolder", "")
    if folder.is_dir() and not any((inner / file).is_file() for file in _TOKENIZER_FILES):
        # What AutoTokenizer does then depends on the release; some give a tokenizer without a vocabulary.
        logger.warning("no tokenizer found in %s, so text cannot be used until set_tokenizer()", inner)
        return None
    shared = {key: options[key] for key in _SHARED_WITH_TOKENIZER if key in options}
    return AutoTokenizer.from_pretrained(name, **shared)
