"""Where pip would look is where releases are looked for."""

from pathlib import Path

import pytest

from mishformer_lens.compat.pip_settings import PipSettings, read_pip_settings
from mishformer_lens.errors import RegistryError


@pytest.fixture
def configuration(tmp_path: Path) -> Path:
    path = tmp_path / "pip.conf"
    path.write_text(
        "[global]\nindex-url = http://one/simple/\nextra-index-url =\n    http://two/simple/\n    http://three/simple/\n"
        "timeout = 7\n[download]\ncert = /certificates.pem\n[install]\nindex-url = http://never/\n"
    )
    return path


def test_a_configuration_file_is_read(configuration: Path) -> None:
    settings = read_pip_settings({"PIP_CONFIG_FILE": str(configuration)})
    assert settings.index_url == "http://one/simple/"
    assert settings.extra_index_urls == ("http://two/simple/", "http://three/simple/")
    assert settings.certificate == "/certificates.pem"
    assert settings.timeout == 7.0


def test_the_environment_comes_before_the_file(configuration: Path) -> None:
    settings = read_pip_settings(
        {
            "PIP_CONFIG_FILE": str(configuration),
            "PIP_INDEX_URL": "http://four/",
            "PIP_NO_INDEX": "1",
            "PIP_RETRIES": "9",
        }
    )
    assert (settings.index_url, settings.use_indexes, settings.retries) == ("http://four/", False, 9)


def test_nothing_is_read_where_pip_reads_nothing() -> None:
    assert read_pip_settings({"PIP_CONFIG_FILE": "/dev/null"}) == PipSettings()


def test_a_damaged_file_and_a_timeout_in_words_are_errors(configuration: Path) -> None:
    with pytest.raises(RegistryError, match="no number"):
        read_pip_settings({"PIP_CONFIG_FILE": "/dev/null", "PIP_TIMEOUT": "long"})
    configuration.write_text("index-url = http://one/\n")
    with pytest.raises(RegistryError, match=r"pip\.conf cannot be read"):
        read_pip_settings({"PIP_CONFIG_FILE": str(configuration)})
