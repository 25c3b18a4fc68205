from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3fsx.configuration import credentials
from s3fsx.configuration.credentials import Credentials
from s3fsx.errors import ConfigError

AWS = """
[default]
aws_access_key_id = AK1
aws_secret_access_key = s%ecret=1
region = eu-west-1

[backup]
aws_access_key_id = AK2
aws_secret_access_key = secret2
aws_session_token = token2
"""


@pytest.mark.parametrize(
    "text",
    [
        'access_key = "AK1"\nsecret_key = "s%ecret=1"',
        '# mine\naws-access-key-id = "AK1"\naws_secret_access_key = "s%ecret=1"',
        "AK1:s%ecret=1",
        "# s3fs\n\nAK1:s%ecret=1\n",
        "other:AK9:secret9\nAK1:s%ecret=1",
        AWS,
    ],
)
def test_formats(text: str) -> None:
    assert credentials.parse(text, "FILE", bucket="mine") == Credentials("AK1", "s%ecret=1")


def test_one_of_several() -> None:
    assert credentials.parse(AWS, "FILE", profile="backup") == Credentials("AK2", "secret2", "token2")
    assert credentials.parse("AK1:s1\nmine:AK2:s2", "FILE", bucket="mine") == Credentials("AK2", "s2")


@pytest.mark.parametrize(
    ("text", "profile", "line"),
    [
        ("", "", "FILE: no keys in it"),
        ("# nothing\n", "", "FILE: no keys in it"),
        ("just one word hunter2", "", "FILE: no line KEY:SECRET or mine:KEY:SECRET"),
        ("AK1:", "", "FILE: access_key and secret_key are both needed"),
        ('access_key = "AK1"', "", "FILE: access_key and secret_key are both needed"),
        ("access_key = hunter2", "", 'FILE: not TOML; use access_key = "…" and secret_key = "…"'),
        (
            'region = "x"',
            "",
            "FILE: region does not belong into a credentials file; use access_key, secret_key, session_token",
        ),
        ("AK:s", "backup", "FILE: profile = 'backup' needs a file with a [backup] section"),
        (AWS, "nobody", "FILE: no section [nobody]"),
        ("[default]\nhunter2", "", "FILE: not an AWS credentials file"),
        ("[default]\naws_access_key_id = AK", "", "FILE: access_key and secret_key are both needed"),
    ],
)
def test_mistakes_never_quote_the_file(text: str, profile: str, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        credentials.parse(text, "FILE", bucket="mine", profile=profile)
    assert str(caught.value) == line


@given(st.text())
def test_any_text_gives_keys_or_a_config_error(text: str) -> None:
    try:
        found = credentials.parse(text, "FILE")
    except ConfigError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert found.access_key
        assert found.secret_key


def test_secrets_stay_out_of_repr() -> None:
    assert "hunter2" not in repr(Credentials("AK", "hunter2", "hunter2"))
