"""Where wheels are looked for: several indexes, pages of links, indexes with a password; and servers that fail."""

from pathlib import Path

import pytest

from mishformer_lens.compat import registry as registry_module
from mishformer_lens.compat.cache import SourceCache
from mishformer_lens.compat.pip_settings import PipSettings
from mishformer_lens.compat.sources import Registry, read_source
from mishformer_lens.errors import ArchiveError, RegistryError
from tests.compat.fake_index import GPT2, FakeIndex, serve


def test_an_index_without_the_project_is_passed_over(index: FakeIndex, cache: SourceCache) -> None:
    with serve(FakeIndex()) as other:
        # It answers the project's page alone.
        nothing = other.url + "nothing/"
        settings = PipSettings(index_url=nothing, extra_index_urls=(index.url,), retries=0, timeout=5)
        assert Registry(cache, settings).releases() == ["4.44.0", "4.45.2"]
        assert read_source("gpt2", "4.45.2", Registry(cache, settings)) == "gpt2 = '4.45.2'\n"


def test_a_page_of_links_comes_before_the_index(index: FakeIndex, cache: SourceCache) -> None:
    with serve(FakeIndex()) as links:
        links.add("4.46.0", {GPT2: "linked = True\n"})
        settings = PipSettings(index_url=index.url, find_links=(links.links_url,), retries=0, timeout=5)
        assert Registry(cache, settings).releases() == ["4.44.0", "4.45.2", "4.46.0"]
        assert read_source("gpt2", "4.46.0", Registry(cache, settings)) == "linked = True\n"


def test_a_page_of_links_that_is_not_there(index: FakeIndex, cache: SourceCache) -> None:
    settings = PipSettings(find_links=(index.url + "nowhere",), use_indexes=False, retries=0, timeout=5)
    with pytest.raises(RegistryError, match="status 404"):
        Registry(cache, settings).releases()


def test_an_index_s_password_goes_to_its_own_host_and_into_no_message(index: FakeIndex, cache: SourceCache) -> None:
    url = index.url.replace("http://", "http://me:secret%21@")
    settings = PipSettings(index_url=url, retries=0, timeout=5)
    assert read_source("gpt2", "4.45.2", Registry(cache, settings)) == "gpt2 = '4.45.2'\n"
    assert "Basic bWU6c2VjcmV0IQ==" in index.authorizations
    index.wheels["4.44.0"], index.ranges = b"no wheel", False
    with pytest.raises(ArchiveError, match="another hash than the index") as raised:
        read_source("gpt2", "4.44.0", Registry(cache, settings))
    assert "secret" not in str(raised.value)


def test_a_wheel_that_is_gone_from_the_server(index: FakeIndex, cache: SourceCache) -> None:
    settings = PipSettings(index_url=index.url, retries=0, timeout=5)
    known = Registry(cache, settings)
    assert "4.44.0" in known.releases()
    index.gone = True
    with pytest.raises(RegistryError, match="cannot be reached"):
        read_source("gpt2", "4.44.0", known)


def test_a_wheel_that_is_too_large_is_given_up(
    index: FakeIndex, cache: SourceCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.ranges = False
    monkeypatch.setattr(registry_module, "MAX_WHEEL_BYTES", 10)
    with pytest.raises(ArchiveError, match="larger than 10 bytes"):
        read_source("gpt2", "4.44.0", Registry(cache, PipSettings(index_url=index.url, retries=0, timeout=5)))
    assert not list(cache.folder.glob("*.part"))


def test_a_certificate_that_is_not_there(cache: SourceCache, tmp_path: Path) -> None:
    settings = PipSettings(index_url="https://localhost/simple", certificate=str(tmp_path / "trusted.pem"))
    with pytest.raises(RegistryError, match=r"trusted.pem.* is not there"):
        Registry(cache, settings).releases()


def test_a_certificate_is_what_servers_are_checked_with(index: FakeIndex, cache: SourceCache, tmp_path: Path) -> None:
    certificate = tmp_path / "trusted.pem"
    certificate.write_text("no certificate")
    url = index.url.replace("http:", "https:")
    with pytest.raises(RegistryError, match="cannot be reached"):
        Registry(cache, PipSettings(index_url=url, certificate=str(certificate), retries=0, timeout=5)).releases()
