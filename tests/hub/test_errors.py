"""Every way in which the Hub fails is a `HubError`, whatever library the client speaks HTTP with."""

from __future__ import annotations

import pytest
from huggingface_hub.errors import HfHubHTTPError

from diffmiczoo.errors import DiffMICError
from diffmiczoo.hub import errors
from diffmiczoo.hub.card_facts import IncompleteCardError
from diffmiczoo.hub.checksums import ChecksumError


def test_errors_have_one_base() -> None:
    assert issubclass(errors.HubError, DiffMICError) and issubclass(errors.HubError, OSError)
    assert issubclass(ChecksumError, DiffMICError) and issubclass(ChecksumError, ValueError)
    assert issubclass(IncompleteCardError, DiffMICError) and issubclass(IncompleteCardError, ValueError)


def test_what_the_installed_client_raises_is_known() -> None:
    """Also where a new version of huggingface_hub speaks HTTP with another library."""
    assert issubclass(HfHubHTTPError, errors._transport_errors())


def test_errors_that_are_none_of_the_hubs_are_not_dressed_up() -> None:
    with pytest.raises(ZeroDivisionError), errors.translate_errors(errors.Request("a/b", "config.json")):
        raise ZeroDivisionError
