"""HuggingFace's own tests out of a release's sdist, and what they need beside to run on our families.

An sdist of transformers carries the files `tests/test*.py` and no folder below: what all models have in common is there
(`test_modeling_common.py`), what imports it for a single model is not. So a test case for each family is generated, and
a stand-in for each module that the common tests import and the sdist lacks.
"""

from __future__ import annotations

import ast
import shutil
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

import requests
from pypi_simple import DigestMismatchError, NoSuchProjectError

from tools.package_index import package_index

MIXINS = {"test_modeling_common": "ModelTesterMixin", "test_training_mixin": "TrainingTesterMixin"}
"""Module of the sdist to the class in it whose tests are run. Only the first is in every release."""

PROJECT = "transformers"
MAX_BYTES = 8 * 2**20
"""Ten times the largest file of tests so far."""

NO_OPTIONS = "[pytest]\n"

CASE = '''"""HuggingFace's common tests on {family}. Generated; see tools/upstream."""

import unittest

from tools.upstream.glue import default_glue, eager_glue

{imports}


class DefaultTest(default_glue("{family}"), {mixins}, unittest.TestCase):
    pass


class EagerTest(eager_glue("{family}"), {mixins}, unittest.TestCase):
    pass
'''


class UpstreamError(Exception):
    """The tests of a release cannot be had, or say nothing."""


def fetch_sdist(release: str, folder: Path) -> Path:
    """The sdist of `release` in `folder`, downloaded unless it is there. Its hash is the index's.

    Raises UpstreamError when the index has none, cannot be reached, or gives another file than it says.
    """
    target = folder / f"{PROJECT}-{release}.tar.gz"
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with package_index() as index:
        try:
            packages = index.get_project_page(PROJECT).packages
            found = [each for each in packages if each.package_type == "sdist" and each.version == release]
            if not found:
                raise UpstreamError(
                    f"the package index has no sdist of {PROJECT} {release}: there are no tests to run."
                )
            part = target.with_suffix(".part")
            index.download_package(found[0], part)
        except (NoSuchProjectError, DigestMismatchError, requests.RequestException) as error:
            raise UpstreamError(f"the sdist of {PROJECT} {release} cannot be had: {error}") from error
    return part.replace(target)


def unpack_tests(sdist: Path, folder: Path) -> Path:
    """Puts the files `tests/test*.py` of `sdist` into `folder`, and returns the folder of tests.

    Raises UpstreamError when the sdist has no tests of models, or holds a file that is no test.
    """
    tests = folder / "tests"
    # An earlier run's stand-ins would count as the release's.
    shutil.rmtree(tests, ignore_errors=True)
    tests.mkdir(parents=True)
    with tarfile.open(sdist) as archive:
        for member in archive:
            path = PurePosixPath(member.name)
            if len(path.parts) == 3 and path.parts[1] == "tests" and path.suffix == ".py" and member.isfile():
                if member.size > MAX_BYTES:
                    raise UpstreamError(f"{member.name} in {sdist.name} has {member.size} bytes: that is no test.")
                content = archive.extractfile(member)
                assert content is not None, "a regular file"
                (tests / path.name).write_bytes(content.read())
    if not (tests / "test_modeling_common.py").is_file():
        raise UpstreamError(f"{sdist.name} has no tests/test_modeling_common.py, so there are no tests to run.")
    return tests


def write_cases(folder: Path, families: Iterable[str]) -> list[str]:
    """Makes `folder`, with unpacked tests in it, ready for pytest. Returns the modules that have a stand-in."""
    tests = folder / "tests"
    (folder / "pytest.ini").write_text(NO_OPTIONS, encoding="utf-8")
    present = {module: mixin for module, mixin in MIXINS.items() if (tests / f"{module}.py").is_file()}
    stand_ins: dict[str, set[str]] = {}
    for module in present:
        for name, wanted in missing_imports((tests / f"{module}.py").read_text(encoding="utf-8"), tests):
            stand_ins.setdefault(name, set()).update(wanted)
    for name, classes in stand_ins.items():
        path = tests.joinpath(*name.split(".")).with_suffix(".py")
        _make_packages(tests, path.parent)
        path.write_text("".join(f"class {each}:\n    pass\n\n\n" for each in sorted(classes)), encoding="utf-8")
    imports = [f"from ...{module} import {mixin}" for module, mixin in present.items()]
    mixins = list(present.values())
    for name, classes in stand_ins.items():
        # The common tests look whether a case inherits from those that fit it.
        inherited = sorted(each for each in classes if each.endswith("TesterMixin"))
        imports += [f"from ...{name} import {each}" for each in inherited]
        mixins += inherited
    for family in families:
        path = tests / "models" / family / f"test_modeling_{family}.py"
        _make_packages(tests, path.parent)
        text = CASE.format(family=family, imports="\n".join(imports), mixins=", ".join(mixins))
        path.write_text(text, encoding="utf-8")
    return sorted(stand_ins)


def missing_imports(source: str, tests: Path) -> Iterator[tuple[str, list[str]]]:
    """What `source`, a module in `tests`, imports at its top from modules beside it that are not there."""
    for node in ast.parse(source).body:
        if not isinstance(node, ast.ImportFrom) or node.level != 1 or node.module is None:
            continue
        if not tests.joinpath(*node.module.split(".")).with_suffix(".py").is_file():
            yield node.module, [alias.name for alias in node.names]


def _make_packages(tests: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for each in (folder, *folder.parents):
        (each / "__init__.py").touch()
        if each == tests:
            return
