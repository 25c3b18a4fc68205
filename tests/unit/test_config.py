from __future__ import annotations

import dataclasses
import os
import ssl
from collections.abc import Mapping
from pathlib import Path

import pytest

from s3fsx.configuration import config, configfile
from s3fsx.configuration.config import to_s3_options
from s3fsx.configuration.configfile import ConfigFile, Unreadable
from s3fsx.configuration.settings import SCHEMA, Settings
from s3fsx.errors import ConfigError
from s3fsx.service import report

COMMON, MINE, KEYS = "/etc/s3fsx/s3fsx.toml", "/etc/s3fsx/mine.toml", "/keys"


class Files:
    """The files there are, by path; those in ``exposed`` can be read by others."""

    def __init__(
        self, files: Mapping[str, str], exposed: tuple[str, ...] = (), unreadable: tuple[str, ...] = ()
    ) -> None:
        self.files = files
        self.exposed = exposed
        self.unreadable = unreadable

    def __call__(self, path: str) -> ConfigFile:
        if path in self.unreadable:
            raise Unreadable(f"{path}: this user may not read it")
        if path not in self.files:
            raise FileNotFoundError(path)
        return ConfigFile(path, self.files[path], f"{path}: chmod 600 {path}" if path in self.exposed else "")


def load(
    source: str | None = "mine",
    *options: str,
    files: Mapping[str, str] | None = None,
    env: Mapping[str, str] | None = None,
    exposed: tuple[str, ...] = (),
) -> config.Config:
    return config.load(
        source, options, env=env or {}, read_file=Files({MINE: "bucket = 'bbb'", **(files or {})}, exposed)
    )


def refusal(*args: str, **kwargs: object) -> str:
    with pytest.raises(ConfigError) as caught:
        load(*args, **kwargs)  # type: ignore[arg-type]
    line = str(caught.value)
    assert "\n" not in line
    return line


def test_later_layers_win_and_every_value_knows_where_it_came_from() -> None:
    layers = {COMMON: "region = 'one'\nmax_uploads = 1\nmax_downloads = 1\nattempts = 1\nuid = 1"}
    layers[MINE] = "bucket = 'bbb'\nmax-uploads = 2\nmax_downloads = 2\nattempts = 2"
    env = {"S3FSX_MAX_DOWNLOADS": "3", "S3FSX_ATTEMPTS": "3", "PATH": "/bin", "S3FSX_CONFIG_DIR": ""}
    loaded = load("mine", "attempts=4", files=layers, env=env)
    s = loaded.settings
    assert (s.uid, s.max_uploads, s.max_downloads, s.attempts) == (1, 2, 3, 4)
    origins = {name: item.origin for name, item in loaded.effective.items()}
    assert list(origins) == list(SCHEMA)
    assert origins["region"] == COMMON
    assert origins["max_uploads"] == MINE
    assert origins["max_downloads"] == "S3FSX_MAX_DOWNLOADS"
    assert origins["attempts"] == "-o"
    assert origins["part_size"] == "default"


def test_an_address_as_source() -> None:
    loaded = load("s3://bucket/a/b", env={"S3FSX_BUCKET": "other", "S3FSX_PREFIX": "p"})
    assert (loaded.settings.bucket, loaded.settings.prefix) == ("bucket", "a/b/")
    assert loaded.effective["bucket"].origin == loaded.effective["prefix"].origin == "SOURCE"
    assert load("s3://bucket", "prefix=x").settings.prefix == "x/"
    assert load("s3://bucket/", env={"S3FSX_PREFIX": "p"}).settings.prefix == "p/"


def test_files_that_only_root_can_read() -> None:
    """The common one is none of this user's business, the one that was asked for is."""
    read = Files({MINE: "bucket = 'bbb'"}, unreadable=(COMMON,))
    assert config.load("s3://bucket", env={}, read_file=read).settings.bucket == "bucket"
    assert config.load("mine", env={}, read_file=read).settings.bucket == "bbb"
    assert config.runtime_dir(env={}, read_file=read) == Settings().runtime_dir
    with pytest.raises(ConfigError, match=f"^{MINE}: this user may not read it; S3FSX_CONFIG_DIR names another"):
        config.load("mine", env={}, read_file=Files({}, unreadable=(COMMON, MINE)))


def test_a_directory_that_only_root_can_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(path: str, flags: int) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", denied)  # root, who runs the tests, may read everything
    with pytest.raises(Unreadable, match="may not read it"):
        configfile.read_file(str(tmp_path / "x"))


@pytest.mark.parametrize(
    ("common", "env", "options", "expected"),
    [
        ("", {}, (), "/run/s3fsx"),
        ("runtime-dir = '/1'\nsecret_key = 'x'\npart_size = 'junk'", {"S3FSX_NO_SUCH": "1"}, (), "/1"),
        ("runtime_dir = '/1'", {"S3FSX_RUNTIME_DIR": "/2"}, (), "/2"),
        ("runtime_dir = '/1'", {"S3FSX_RUNTIME_DIR": "/2"}, ("runtime_dir=/3",), "/3"),
        ("no TOML", {"S3FSX_RUNTIME_DIR": "/2"}, (), "/2"),
    ],
)
def test_the_runtime_directory_alone(common: str, env: dict[str, str], options: tuple[str, ...], expected: str) -> None:
    assert config.runtime_dir(options, env=env, read_file=Files({COMMON: common})) == expected


def test_the_runtime_directory_must_be_one() -> None:
    with pytest.raises(ConfigError, match="-o: runtime_dir = 'x'"):
        config.runtime_dir(["runtime_dir=x"], env={}, read_file=Files({}))


def test_the_ca_file_is_looked_into() -> None:
    text = ssl.DER_cert_to_PEM_cert(b"no certificate")
    files = {"/empty": "", "/text": "hello", "/broken": text}
    assert refusal("mine", "ca_file=/nowhere", files=files) == "-o: ca_file = /nowhere: no such file"
    for path in files:
        line = refusal("mine", f"ca_file={path}", files=files)
        assert line == f"-o: ca_file = {path}: no certificate in PEM form in it"
    assert load("mine", "ca_file=/nowhere,verify_tls=false").settings.ca_file == "/nowhere"


def test_the_directory_can_be_elsewhere() -> None:
    files = {"/other/x.toml": "bucket = 'bbb'"}
    assert load("x", files=files, env={"S3FSX_CONFIG_DIR": "/other"}).settings.bucket == "bbb"


def test_without_source_no_bucket_is_needed() -> None:
    assert load(None).settings == Settings()


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("nobody", "/etc/s3fsx/nobody.toml: no such file; SOURCE is its NAME"),
        ("mine.toml", "/etc/s3fsx/mine.toml.toml: no such file; leave out .toml"),
        ("../etc/passwd", "SOURCE is s3://BUCKET"),
        ("s3fsx", "SOURCE is s3://BUCKET"),
        ("", "SOURCE is s3://BUCKET"),
        ("s3://", "no bucket"),
        ("s3://a b", "SOURCE: bucket = 'a b': use a name of 3 to 63"),
        ("s3://bucket/a//b", "SOURCE: prefix = 'a//b': use a key prefix"),
        ("s3://bucket/.s3fsx/x", "SOURCE: prefix: '.s3fsx/x' contains .s3fsx"),
    ],
)
def test_bad_sources(source: str, words: str) -> None:
    assert words in refusal(source)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("bucket = 'bbb'\nprt_size = 1", f"{MINE}: unknown setting 'prt_size'; did you mean 'part_size'?"),
        ("bucket = 'bbb'\n[tls]\nx = 1", f"{MINE}: unknown setting 'tls'; 's3fsx config show' lists all settings"),
        ("bucket = 'bbb'\nsecret_key = hunter2", f"{MINE}: not valid TOML (at line 2, column 14)"),
        (
            "bucket = 'bbb'\npart_size = '8M'\nmultipart_chunk_size = 16",
            f"{MINE}: part_size and multipart_chunk_size both set part_size, differently; keep one",
        ),
        ("prefix = 'x'", 'no bucket: use SOURCE s3://BUCKET, or bucket = "…" in the configuration file'),
    ],
)
def test_mistakes_in_a_file(text: str, line: str) -> None:
    assert refusal(files={MINE: text}) == line


def test_mistakes_in_the_environment() -> None:
    line = refusal(env={"S3FSX_PART_SIZ": "1"})
    assert line == "S3FSX_PART_SIZ: unknown setting 'part_siz'; did you mean 'part_size'?"
    assert refusal(env={"S3FSX_PART_SIZE": "1"}).startswith("S3FSX_PART_SIZE: part_size = '1': out of range")


def test_the_last_of_an_option_counts() -> None:
    assert load("mine", "uid=1,uid=2", "exec,noexec").settings.uid == 2
    assert load("mine", "exec,noexec").settings.noexec is True


@pytest.mark.parametrize(
    "option",
    ["secret_key=hunter2", "aws-secret-access-key=hunter2", "session_token=hunter2", "proxy=http://a:hunter2@p:1"],
)
def test_secrets_are_refused_on_the_command_line(option: str) -> None:
    line = refusal("mine", option)
    assert "is refused" in line
    assert "hunter2" not in line
    assert "/etc/s3fsx/NAME.toml with mode 0600, or into S3FSX_" in line


@pytest.mark.parametrize("key", ["secret_key", "aws_secret_access_key", "session_token"])
def test_a_file_that_others_can_read_holds_no_secret(key: str) -> None:
    files = {MINE: f"bucket = 'bbb'\naccess_key = 'AK'\n{key} = 'hunter2'"}
    assert refusal(files=files, exposed=(MINE,)) == f"{MINE}: chmod 600 {MINE}"
    assert load(exposed=(MINE,)).settings.bucket == "bbb"  # without a secret anybody may read it


def test_keys_of_a_credentials_file() -> None:
    loaded = load("mine", f"passwd_file={KEYS}", files={KEYS: "AK:secret"})
    assert (loaded.settings.access_key, loaded.settings.secret_key) == ("AK", "secret")
    assert loaded.effective["secret_key"].origin == KEYS
    assert "secret" not in repr(loaded.settings)


def test_a_credentials_file_that_others_can_read_is_refused() -> None:
    option = f"credentials_file={KEYS}"
    assert refusal("mine", option, files={KEYS: "AK:secret"}, exposed=(KEYS,)) == f"{KEYS}: chmod 600 {KEYS}"
    assert refusal("mine", option) == f"-o: credentials_file = {KEYS}: no such file"


def test_of_keys_and_a_file_with_keys_the_later_layer_counts() -> None:
    env = {"S3FSX_ACCESS_KEY": "ENV", "S3FSX_SECRET_KEY": "e"}
    in_file = {MINE: f"bucket = 'bbb'\ncredentials_file = '{KEYS}'", KEYS: "AK:secret"}
    s = load(files=in_file, env=env).settings
    assert (s.access_key, s.credentials_file) == ("ENV", "")
    s = load("mine", f"credentials_file={KEYS}", files={KEYS: "AK:secret"}, env=env).settings
    assert (s.access_key, s.secret_key) == ("AK", "secret")
    both = {MINE: f"bucket = 'bbb'\ncredentials_file = '{KEYS}'\naccess_key = 'A'\nsecret_key = 's'", KEYS: "AK:secret"}
    assert refusal(files=both) == f"{MINE}: access_key or secret_key beside credentials_file; keep one"


def test_a_small_budget_cuts_the_default_read_ahead_and_refuses_a_chosen_one() -> None:
    assert load("mine", "memory_budget=64M").settings.memory_budget == 64 << 20
    with pytest.raises(ConfigError, match="read_ahead: 64MiB is more than half of memory_budget 64MiB"):
        load("mine", "memory_budget=64M,read_ahead=64M")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("access_key = 'A'", f"{MINE}: access_key: secret_key is missing"),
        ("secret_key = 'A'", f"{MINE}: secret_key: access_key is missing"),
        ("session_token = 'A'", f"{MINE}: session_token: access_key and secret_key are missing"),
        ("sse_kms_key_id = 'A'", f"{MINE}: sse_kms_key_id: needs sse = aws:kms"),
        ("part_size = '64M'", f"{MINE}: part_size: 64MiB is more than a quarter of memory_budget 128MiB"),
        ("read_ahead = '65M'", f"{MINE}: read_ahead: 65MiB is more than half of memory_budget 128MiB"),
        ("[layout]\ndump = 'images'", f"{MINE}: layout: dump (images/) and images (images/) overlap in the bucket"),
        ("[layout]\ndump = '.s3fsx/'", f"{MINE}: layout: dump: '.s3fsx' contains .s3fsx, which s3fsx keeps for itself"),
    ],
)
def test_what_does_not_go_together(text: str, line: str) -> None:
    assert refusal(files={MINE: f"bucket = 'bbb'\n{text}"}) == line


def test_storage_classes_of_amazon_and_of_others() -> None:
    assert "none of Amazon's: STANDARD," in refusal("mine", "storage_class=COLD")
    assert load("mine", "storage_class=cold,endpoint=https://rgw").settings.storage_class == "COLD"
    assert "none of Amazon's" in refusal("mine", "storage_class=COLD,endpoint=https://s3.eu-west-1.amazonaws.com")


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ({}, "virtual"),
        ({"bucket": "with.dot"}, "path"),
        ({"endpoint": "https://s3.example.com"}, "path"),
        ({"endpoint": "https://s3.eu-west-1.amazonaws.com"}, "virtual"),
        ({"endpoint": "https://evil-amazonaws.com"}, "path"),
        ({"endpoint": "https://s3.example.com", "addressing": "virtual"}, "virtual"),
        ({"addressing": "path"}, "path"),
    ],
)
def test_addressing(given: dict[str, str], meant: str) -> None:
    assert to_s3_options(Settings(**given)).addressing == meant  # type: ignore[arg-type]


def test_store_options_take_over_every_field() -> None:
    given = load(
        "s3://bucket",
        "endpoint=https://e,region=r1,ca_file=/ca,verify_tls=false,proxy=http://p:1,storage_class=X,sse=aws:kms,"
        "sse_kms_key_id=k,max_uploads=11,max_downloads=12,connect_timeout=13,read_timeout=14,attempts=15,"
        "metadata_deadline=16,read_deadline=17,write_deadline=18,profile=me",
        env={"S3FSX_ACCESS_KEY": "A", "S3FSX_SECRET_KEY": "S", "S3FSX_SESSION_TOKEN": "T"},
    ).settings
    options = to_s3_options(given)
    for field in dataclasses.fields(options):
        wanted = "path" if field.name == "addressing" else getattr(given, field.name)
        assert getattr(options, field.name) == wanted
        assert wanted != field.default, f"{field.name}: the test gives the default, which shows nothing"


def test_without_keys_the_chain_of_the_aws_tools_is_asked() -> None:
    options = to_s3_options(Settings(bucket="b"))
    assert (options.access_key, options.secret_key, options.session_token, options.profile) == (None,) * 4
    from_file = Settings(bucket="b", access_key="A", secret_key="S", credentials_file="/keys", profile="there")
    assert to_s3_options(from_file).profile is None


def test_variables_with_secrets() -> None:
    env = {
        "S3FSX_SECRET_KEY": "",
        "S3FSX_PROXY": "",
        "S3FSX_REGION": "",
        "S3FSX_AWS_SESSION_TOKEN": "",
        "SECRET_KEY": "",
    }
    assert config.secret_variables(env) == ["S3FSX_SECRET_KEY", "S3FSX_PROXY", "S3FSX_AWS_SESSION_TOKEN"]


def test_config_show_masks_secrets_and_names_origins() -> None:
    env = {"S3FSX_SECRET_KEY": "hunter2", "S3FSX_ACCESS_KEY": "AK", "S3FSX_PROXY": "http://u:hunter2@p:1"}
    text = "\n".join(report.config_lines(load("mine", "part_size=16M", env=env).effective))
    assert "hunter2" not in text
    lines = [line.split() for line in text.splitlines()]
    assert ["secret_key", "=", "****", "#", "S3FSX_SECRET_KEY"] in lines
    assert ["part_size", "=", "16MiB", "#", "-o"] in lines
    assert ["max_uploads", "=", "16", "#", "default"] in lines
    assert {line[0] for line in lines if line[0] != "#"} == set(SCHEMA)


class TestRealFiles:
    def test_private(self, tmp_path: Path) -> None:
        path = tmp_path / "x"
        path.write_text("text")
        path.chmod(0o600)
        assert configfile.read_file(str(path)) == ConfigFile(str(path), "text", "")

    @pytest.mark.parametrize("mode", [0o644, 0o640, 0o620, 0o601])
    def test_exposed(self, tmp_path: Path, mode: int) -> None:
        path = tmp_path / "x"
        path.write_text("text")
        path.chmod(mode)
        with pytest.raises(ConfigError, match=f"has mode {mode:04o}: chmod 600 {path}"):
            configfile.read_file(str(path)).require_private()

    def test_of_another_user(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path / "x"
        path.write_text("text")
        path.chmod(0o600)
        uid = path.stat().st_uid or 4711
        if path.stat().st_uid == 0:
            os.chown(path, uid, -1)
        monkeypatch.setattr("os.geteuid", lambda: uid + 1)
        with pytest.raises(ConfigError, match=f"belongs to uid {uid}: chown root {path}"):
            configfile.read_file(str(path)).require_private()

    @pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
    def test_that_others_can_write(self, tmp_path: Path, mode: int) -> None:
        """They would decide where the daemon writes its log, and to whom it sends what."""
        path = tmp_path / "mine.toml"
        path.write_text("bucket = 'bbb'")
        path.chmod(mode)
        with pytest.raises(ConfigError, match=f"chmod go-w {path}"):
            config.load("mine", env={"S3FSX_CONFIG_DIR": str(tmp_path)})

    @pytest.mark.parametrize("name", ["mine.toml", "s3fsx.toml"])
    def test_in_a_directory_that_others_can_write(self, tmp_path: Path, name: str) -> None:
        (tmp_path / "mine.toml").write_text("bucket = 'bbb'")
        (tmp_path / name).touch()
        tmp_path.chmod(0o777)
        with pytest.raises(ConfigError, match=f"others can write to {tmp_path}: chmod go-w {tmp_path}"):
            config.load("mine", env={"S3FSX_CONFIG_DIR": str(tmp_path)})
        tmp_path.chmod(0o755)
        assert config.load("mine", env={"S3FSX_CONFIG_DIR": str(tmp_path)}).settings.bucket == "bbb"

    def test_keys_in_a_directory_that_others_can_write(self, tmp_path: Path) -> None:
        keys = tmp_path / "open" / "keys"
        keys.parent.mkdir()
        keys.write_text("AK:secret")
        keys.chmod(0o600)
        keys.parent.chmod(0o777)
        with pytest.raises(ConfigError, match=f"chmod go-w {keys.parent}"):
            config.load("s3://bbb", [f"credentials_file={keys}"], env={})

    def test_a_link_to_keys_that_another_user_made(self, tmp_path: Path) -> None:
        keys, link = tmp_path / "keys", tmp_path / "tmp" / "link"
        link.parent.mkdir()
        link.parent.chmod(0o1777)
        keys.write_text("AK:secret")
        keys.chmod(0o600)
        link.symlink_to(tmp_path)
        os.lchown(link, 4711, 4711)
        with pytest.raises(ConfigError, match=f"{link} belongs to uid 4711"):
            config.load("s3://bbb", [f"credentials_file={link}/keys"], env={})

    @pytest.mark.parametrize("name", ["credentials", "config"])
    def test_keys_of_the_aws_tools(self, tmp_path: Path, name: str) -> None:
        path = tmp_path / ".aws" / name
        path.parent.mkdir()
        path.write_text("[default]\nregion = x\n")
        env = {"HOME": str(tmp_path)}
        config.load("s3://bbb", env=env)
        path.write_text("[default]\naws_access_key_id = AK\naws_secret_access_key = hunter2\n")
        path.chmod(0o644)
        with pytest.raises(ConfigError, match=f"has mode 0644: chmod 600 {path}"):
            config.load("s3://bbb", env=env)
        config.load("s3://bbb", env={**env, "AWS_ACCESS_KEY_ID": "AK"})  # botocore does not open it
        config.load("s3://bbb", env={**env, "S3FSX_ACCESS_KEY": "AK", "S3FSX_SECRET_KEY": "s"})
        path.chmod(0o600)
        config.load("s3://bbb", env=env)
        other = {"AWS_SHARED_CREDENTIALS_FILE": str(path)}
        path.chmod(0o640)
        with pytest.raises(ConfigError, match="chmod 600"):
            config.load("s3://bbb", env=other)

    def test_what_is_no_text_file(self, tmp_path: Path) -> None:
        (tmp_path / "binary").write_bytes(b"\xff\xfe")
        (tmp_path / "large").write_bytes(b"x" * (configfile.MAX_SIZE + 1))
        os.mkfifo(tmp_path / "fifo")
        for name, why in (
            ("binary", "not UTF-8"),
            ("large", "larger than 1 MiB"),
            ("fifo", "not a regular file"),
            (".", "not a regular file"),
            ("large/x", "Not a directory"),
        ):
            with pytest.raises(ConfigError, match=why):
                configfile.read_file(str(tmp_path / name))
        with pytest.raises(FileNotFoundError):
            configfile.read_file(str(tmp_path / "absent"))


def test_a_file_that_others_can_read_holds_no_password_of_a_proxy() -> None:
    with pytest.raises(ConfigError, match="chmod 600"):
        load(files={MINE: "bucket = 'bbb'\nproxy = 'http://u:hunter2@p:1'"}, exposed=(MINE,))
    assert load(files={MINE: "bucket = 'bbb'\nproxy = 'http://p:1'"}, exposed=(MINE,)).settings.proxy == "http://p:1"


@pytest.mark.parametrize("name", ["-x", "x-", "ab", "a..b", ".ab", "192.168.1.1", "a" * 256, "a b", "bücket"])
def test_a_name_that_no_bucket_has_is_refused_before_any_request(name: str) -> None:
    with pytest.raises(ConfigError, match="use a name of 3 to 63 lower-case letters, digits, dots and dashes"):
        config.load(f"s3://{name}", env={}, read_file=Files({}))


def test_old_names_of_buckets() -> None:
    """Where they may be, they are asked for."""

    def load(name: str, **env: str) -> str:
        variables = {f"S3FSX_{key.upper()}": value for key, value in env.items()}
        return config.load(f"s3://{name}", env=variables, read_file=Files({})).settings.bucket

    for name in ("My_Bucket", "b" * 100):
        assert load(name) == name
        assert load(name, endpoint="https://s3.example.com", region="eu-west-1") == name
        with pytest.raises(ConfigError, match="cannot be one: Amazon's in eu-west-1 have a name of 3 to 63 lower"):
            load(name, region="eu-west-1")
    assert load("bucket--euw1-az1--x-s3", region="eu-west-1") == "bucket--euw1-az1--x-s3"
