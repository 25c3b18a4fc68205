"""The manual pages, the completion and the example of contrib/manual.py: whatever the parser and the schema have."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from s3fsx import cli
from s3fsx.commands.mounting import helper_parser
from s3fsx.configuration import config
from s3fsx.configuration.aliases import ALIASES
from s3fsx.configuration.settings import SCHEMA, Settings

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def manual() -> ModuleType:
    spec = importlib.util.spec_from_file_location("manual", ROOT / "contrib/manual.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before = sys.path[:]
    spec.loader.exec_module(module)
    sys.path[:] = before
    return module


@pytest.fixture(scope="module")
def pages(manual: ModuleType) -> dict[str, str]:
    made: dict[str, str] = manual.pages()
    return made


def test_every_argument_is_explained(manual: ModuleType, pages: dict[str, str]) -> None:
    for parser in (helper_parser(), *dict(manual.commands(cli.build_parser())).values()):
        assert [manual.argument(action) for action in manual.places(parser) if not action.help] == [], parser.prog
    assert not any("see above" in text for text in pages.values())


def test_every_command_and_option_is_in_the_page_and_the_completion(manual: ModuleType, pages: dict[str, str]) -> None:
    found = dict(manual.commands(cli.build_parser()))
    assert {"mount", "umount", "status", "config show"} <= found.keys()
    for name, parser in found.items():
        section = pages["s3fsx.1"].partition(f".SS s3fsx {name}\n")[2].partition("\n.S")[0]
        case = re.search(rf"^    '{name}'\) (.*)$", pages["s3fsx.bash"], re.MULTILINE)
        assert section, name
        assert case is not None, name
        for option in parser._option_string_actions:
            if option not in ("-h", "--help"):
                assert manual.roff(option) in section, (name, option)
            assert option in case[1].split("'")[1].split(), (name, option)


def test_every_setting_and_alias_is_in_its_page(manual: ModuleType, pages: dict[str, str]) -> None:
    entries = re.findall(r"^\.TP\n\.B (\S+)$", pages["s3fsx.toml.5"], re.MULTILINE)
    assert [name for name in (*SCHEMA, *ALIASES) if manual.roff(name) not in entries] == []


def test_the_example_is_the_defaults(manual: ModuleType, pages: dict[str, str], tmp_path: Path) -> None:
    """Each line with its # taken away."""
    lines = re.findall(r"^#(\w+ = .*)$", pages["s3fsx.toml"], re.MULTILINE)
    assert [line.split(" ")[0] for line in lines] == list(SCHEMA)
    text = "\n".join(line for line in lines if line.split(" ")[0] not in manual.SAMPLES)
    text = text.replace('bucket = ""', 'bucket = "some-bucket"')
    (tmp_path / "s3fsx.toml").write_text(text)
    (tmp_path / "s3fsx.toml").chmod(0o600)
    loaded = config.load("s3://some-bucket", [], env={"S3FSX_CONFIG_DIR": str(tmp_path)})
    assert loaded.settings == Settings(bucket="some-bucket")


@pytest.mark.parametrize("name", ["s3fsx.1", "mount.s3fsx.8", "s3fsx.toml.5"])
def test_the_pages_are_sound(pages: dict[str, str], name: str) -> None:
    text = pages[name]
    assert text.startswith(".TH ")
    assert text.isascii()
    # A line that begins with a dot is a request of man(7).
    assert set(re.findall(r"^[.'](\S+)", text, re.MULTILINE)) <= {
        *("TH", "SH", "SS", "TP", "PP", "B", "BI", "BR", "br", "nf", "fi"),
    }


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("s3fsx moun", ["mount"]),
        ("s3fsx config ", ["show"]),
        ("s3fsx config show --d", ["--debug"]),
        ("s3fsx mount -o block_cache_d", ["block_cache_dirs="]),
        ("s3fsx mount -o list_ttl=1s,block_cache_d", ["list_ttl=1s,block_cache_dirs="]),
        ("s3fsx mount pv", ["pve1", "pve2"]),
        ("s3fsx check --debug pve1", ["pve1"]),
        ("s3fsx mount pve1 /pro", ["/proc"]),
        ("s3fsx mount --log-file /etc/os-rel", ["/etc/os-release"]),
        ("s3fsx mount pve1 /mnt nothing", []),
        ("s3fsx nonsense ", []),
    ],
)
def test_bash_completes(pages: dict[str, str], tmp_path: Path, line: str, found: list[str]) -> None:
    bash = shutil.which("bash")
    assert bash is not None
    for name in ("s3fsx", "pve1", "pve2"):
        (tmp_path / f"{name}.toml").touch()
    script = pages["s3fsx.bash"] + (
        'COMP_LINE=$1 COMP_POINT=${#1} COMP_WORDS=("${1##* }") COMP_CWORD=0; _s3fsx; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        [bash, "-c", script, "bash", line],
        env={"S3FSX_CONFIG_DIR": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stdout.split() == found
    assert done.stderr == ""
