"""What a live module was lent: a patched class, and what has to stay as it is for that to be right."""

import copy
import dataclasses
import types
import weakref
from collections.abc import Mapping
from typing import Any

from torch import nn

from mishformer_lens.engine.live_code import describe
from mishformer_lens.errors import ReplacedCodeError, UnsupportedModelError
from mishformer_lens.lent_classes import PLACE, LentClass, rebound, without

Links = tuple[tuple[Mapping[str, object], str, object], ...]
"""Where code stands: the table that has it, under which name, and what it is."""

Path = tuple[tuple[weakref.ref[nn.Module], str, weakref.ref[nn.Module]], ...]
"""How one comes from one module to another inside: from which, by which name, to which."""


@dataclasses.dataclass(frozen=True)
class Loan:
    """A class that was found for a module, and what has to stay as it is for that to be right.

    It is kept when nobody listens, for the next who does, and keeps no module that is gone from the model.

    Attributes:
        module: the module.
        lent: the class to lend it.
        path: how one comes to it from its parent.
        proofs: the living code that the lent class stands in for.
        size: how many attributes the module has without what it is lent.
        has_methods: whether a method of a module was among them.
    """

    module: weakref.ref[nn.Module]
    lent: LentClass
    path: Path
    proofs: Links
    size: int
    has_methods: bool

    @classmethod
    def of(cls, module: nn.Module, lent: LentClass, path: Path, proofs: Links) -> "Loan":
        """A loan of ``lent`` to ``module`` as it is now, not lent."""
        has_methods = types.MethodType in map(type, vars(module).values())
        return cls(weakref.ref(module), lent, path, proofs, len(vars(module)), has_methods)

    def is_in_place(self) -> bool:
        """Whether the module stands where it stood."""
        for above, name, inside in self.path:
            parent, module = above(), inside()
            if parent is None or module is None or parent._modules.get(name) is not module:
                return False
        return True

    def holds(self, module: nn.Module) -> bool:
        """Whether nothing changed that matters about ``module``, which is that of the loan."""
        values = module.__dict__
        if type(module) is not self.lent.original or "forward" in values or PLACE in values or not self.is_in_place():
            return False
        # Half the time of all() with a generator.
        for table, name, code in self.proofs:  # noqa: SIM110
            if table.get(name) is not code:
                return False
        return True

    def __deepcopy__(self, memo: dict[int, Any]) -> "Loan | None":
        """The loan of the copied module: what is known of where it stands is for the original alone."""
        module: nn.Module | None = copy.deepcopy(self.module(), memo)
        assert module is not None  # only what is lent is copied
        return dataclasses.replace(self, module=weakref.ref(module), path=())

    def rebind(self, module: nn.Module, values: dict[str, Any], old: type, new: type) -> None:
        """Bind methods of ``old`` that other code put on ``module`` anew, to those of ``new``.

        Args:
            values: the attributes of ``module``, without what it is lent.
        """
        # A look at every attribute costs as much as all the rest of a loan.
        if self.has_methods or len(values) != self.size:
            values.update(rebound(module, old, new))


def shared_module(one: str, other: str) -> UnsupportedModelError:
    """What to raise where one module stands at the two paths."""
    return UnsupportedModelError(
        f"one module stands at {one} and at {other}, so a hook on one would fire for both. Put a copy in one of the "
        "two places: copy.deepcopy(module)."
    )


def refuse_forward_of_its_own(module: nn.Module, path: str, rebound: Mapping[str, object]) -> None:
    """Refuse a module whose forward need not run its class's.

    Args:
        path: where the module is in its model.
        rebound: its methods that are followed wherever other code keeps them.

    Raises:
        ReplacedCodeError: that of the module was replaced by something else.
    """
    forward = vars(module).get("forward")
    # accelerate's forward calls what it keeps under another name.
    if forward is None or not {"forward", "_old_forward"}.isdisjoint(rebound):
        return
    raise ReplacedCodeError(
        f"the forward of {path or type(module).__name__} was replaced, on this one module, by {describe(forward)}: it "
        "need not run the code that hook points are in, so a hook might never fire. Take it off while hooks are on."
    )


def take_back(module: nn.Module, loan: Loan, attributes: Mapping[str, object]) -> None:
    """Give a module back as it is now, less what it was lent: a class, and these attributes."""
    values, lent, old = module.__dict__, loan.lent, type(module)
    lent.hand_over()
    new = lent.original if old is lent.cls else without(old, lent)
    object.__setattr__(module, "__class__", new)
    values.pop(PLACE, None)
    for name in attributes:
        values.pop(name, None)
    loan.rebind(module, values, old, new)
