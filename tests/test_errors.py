"""The errors: one root, a meaning each, and documentation."""

import inspect
from collections.abc import Iterator
from typing import Any

import pytest

from mishformer_lens import errors
from mishformer_lens.errors import MishformerLensError

ALL = [value for value in vars(errors).values() if inspect.isclass(value) and value.__module__ == errors.__name__]


def descendants(cls: type[Any]) -> Iterator[type[Any]]:
    child: type[Any]
    for child in cls.__subclasses__():
        yield child
        yield from descendants(child)


@pytest.mark.parametrize("cls", ALL)
def test_every_error_has_the_root_and_every_warning_is_one(cls: type) -> None:
    assert issubclass(cls, UserWarning if cls.__name__.endswith("Warning") else MishformerLensError)
    assert cls.__name__.endswith(("Error", "Warning"))


@pytest.mark.parametrize("cls", ALL)
def test_every_error_says_what_it_means(cls: type) -> None:
    assert "__doc__" in vars(cls)
    assert str(cls.__doc__).endswith(".") or "\n" in str(cls.__doc__)


def test_every_error_of_the_package_is_in_one_module() -> None:
    assert {cls for cls in descendants(MishformerLensError) if cls.__module__.startswith("mishformer_lens")} <= set(ALL)


def test_the_root_does_not_catch_the_errors_of_others() -> None:
    assert MishformerLensError.__mro__[1] is Exception


@pytest.mark.parametrize(
    ("root", "members"),
    [
        (
            errors.PatchError,
            {
                errors.InvalidAnchorError,
                errors.MemberNotFoundError,
                errors.AnchorMatchError,
                errors.SpliceError,
                errors.UnsupportedEditError,
            },
        ),
        (
            errors.ResolutionError,
            {
                errors.TransformersNotInstalledError,
                errors.ReleaseTooOldError,
                errors.SourceChangedError,
                errors.SourceUnreadableError,
                errors.UnverifiedSourceError,
                errors.AnchorsMissingError,
                errors.ModifiedSourceError,
            },
        ),
    ],
)
def test_errors_can_be_caught_by_kind(root: type, members: set[type]) -> None:
    assert members <= set(descendants(root))
