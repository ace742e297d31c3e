"""FSDP2 on a hooked model, in any order, in one process."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard

import mishformer_lens
from tests.instrument.live import logits, zero
from tests.models import DEVICE, Case, make_model
from tests.recording import assert_same, hooked


@pytest.fixture(scope="module")
def mesh() -> Iterator[DeviceMesh]:
    dist.init_process_group("gloo", rank=0, world_size=1, store=torch._C._distributed_c10d.HashStore())
    try:
        yield init_device_mesh(DEVICE.type, (1,))
    finally:
        dist.destroy_process_group()


def shard(model: Any, mesh: DeviceMesh) -> None:
    for block in mishformer_lens.instrument(model).blocks.children():
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)


@pytest.mark.parametrize("when", ["before", "idle", "listening"])
@pytest.mark.parametrize("name", ["blocks.1.hook_resid_post", "blocks.1.attn.hook_z", "hook_embed"])
def test_blocks_stay_sharded_and_hooks_fire(kind: str, mesh: DeviceMesh, name: str, when: str) -> None:
    plain, model = make_model(Case(kind)), make_model(Case(kind))
    expected = logits(plain)
    with hooked(mishformer_lens.instrument(plain).hook_points, {name: zero}):
        edited = logits(plain)
    if when == "before":
        shard(model, mesh)
    instrumentation = mishformer_lens.instrument(model)
    if when == "listening":
        with instrumentation.caching(), torch.no_grad():
            shard(model, mesh)
            assert_same(logits(model), expected)
    if when == "idle":
        shard(model, mesh)
    assert_same(logits(model), expected)
    with instrumentation.caching() as cache:
        assert_same(logits(model), expected)
    assert list(cache) == instrumentation.unflagged_names
    with hooked(instrumentation.hook_points, {name: zero}):
        assert_same(logits(model), edited)
    instrumentation.remove()
    assert_same(logits(model), expected)
    originals = mishformer_lens.instrument(plain).blocks.children()
    for block, original in zip(instrumentation.blocks.children(), originals, strict=True):
        assert isinstance(block, FSDPModule)
        assert type(block).__mro__[2] is type(original)
        assert not any(name.startswith(("_mishformer", "hook_")) for name in vars(block))
