"""``s3fsx gateway``: serve a directory or another S3, its users, keys and buckets, and a check of it."""

from __future__ import annotations

import argparse
import importlib.util
import os
import secrets
import sys
import tomllib
from collections.abc import Callable
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from ..service import log
from ..service.daemon import keep_private
from .parsing import Commands

if TYPE_CHECKING:
    from ..gateway.accounts import Accounts
    from ..gateway.serving import Settings

_NEEDED = ("h11", "defusedxml")


def add(commands: Commands) -> None:
    gateway = commands.group("gateway", "serve a directory or another S3, to s3fsx and to any other client")
    serve = gateway.add("serve", _serve, "serve a directory or another S3 until SIGTERM", options=False)
    serve.add_argument("--config", metavar="FILE", help="TOML with the settings below; what is given here wins")
    serve.add_argument("--path", metavar="DIR", help="each directory in it is a bucket")
    serve.add_argument("--upstream", metavar="URL", help="instead: another S3, for users of the gateway's own")
    serve.add_argument("--upstream-key-file", metavar="FILE", help="a line ACCESS:SECRET, mode 0600: its key")
    serve.add_argument("--upstream-region", metavar="REGION", help="its region, default us-east-1")
    serve.add_argument("--upstream-ca", metavar="FILE", help="PEM of who signed its certificate; default the system's")
    serve.add_argument(
        "--upstream-trailers", action="store_true", default=None, help="it takes checksums in trailers, as Amazon does"
    )
    serve.add_argument("--state", metavar="DIR", help="with --upstream: for users, and for whose the buckets are")
    serve.add_argument("--listen", metavar="HOST:PORT", help="default 127.0.0.1:9000; port 0: any")
    serve.add_argument("--tls", nargs=2, metavar=("CERT", "KEY"), help="PEM files")
    who = serve.add_mutually_exclusive_group()
    who.add_argument("--access-key-file", metavar="FILE", help="lines ACCESS:SECRET, mode 0600: keys with all rights")
    who.add_argument("--no-auth", action="store_true", default=None, help="everybody may do all; loopback only")
    serve.add_argument("--region", help="default us-east-1; requests signed for another one are refused")
    serve.add_argument("--domain", action="append", help="of bucket.DOMAIN in Host; may be repeated; default localhost")
    serve.add_argument("--sigv2", action="store_true", default=None, help="also take signatures of version 2")
    serve.add_argument(
        "--acl", action="store_true", default=None, help="obey access control lists, also for requests without a key"
    )
    serve.add_argument("--access-log", metavar="FILE", help="a line of JSON for each request; - is stderr")
    serve.add_argument(
        "--metrics", metavar="HOST:PORT|unix:PATH", help="where Prometheus may ask; default nowhere; loopback only"
    )
    _users(gateway.group("user", "who may use the gateway"))
    _keys(gateway.group("key", "the keys of its users"))
    _buckets(gateway.group("bucket", "its buckets"))
    fsck = gateway.add("fsck", _fsck, "compare data and metadata, and find what a crash has left", options=False)
    _path(fsck)
    fsck.add_argument("--data", action="store_true", help="read everything, and compare MD5 and checksums")
    fsck.add_argument("--repair", action="store_true", help="take away what nothing refers to; not while it is served")


def _path(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--path", required=True, metavar="DIR", help="that is served, or the --state of it")


def _users(group: Commands) -> None:
    added = group.add("add", _user_add, "a user and its first key, which is printed once", options=False)
    _path(added)
    added.add_argument("name", metavar="USER", help="letters, digits and . _ @ -")
    added.add_argument("--admin", action="store_true", help="all rights to all buckets")
    added.add_argument("--read-only", action="store_true", help="may change nothing")
    added.add_argument(
        "--bucket",
        action="append",
        default=[],
        metavar="NAME:rw|ro",
        help="a right to buckets, NAME with * and ?; without: those that the user makes",
    )
    removed = group.add("rm", _user_rm, "a user and its keys", options=False)
    _path(removed)
    removed.add_argument("name", metavar="USER", help="as list shows it")
    _path(group.add("list", _user_list, "users and their rights", options=False))


def _keys(group: Commands) -> None:
    added = group.add("add", _key_add, "a further key, which is printed once", options=False)
    _path(added)
    added.add_argument("name", metavar="USER", help="whose key it will be")
    removed = group.add("rm", _key_rm, "a key", options=False)
    _path(removed)
    removed.add_argument("access_key", metavar="ACCESS_KEY", help="as list shows it")
    _path(group.add("list", _key_list, "access keys and their users", options=False))


def _buckets(group: Commands) -> None:
    added = group.add("add", _bucket_add, "an empty bucket", options=False)
    _path(added)
    added.add_argument("name", metavar="BUCKET", help="3 to 63 lower-case letters, digits, dots and dashes")
    added.add_argument("--owner", default="admin", metavar="USER", help="default admin")
    removed = group.add("rm", _bucket_rm, "an empty bucket; not while it is served", options=False)
    _path(removed)
    removed.add_argument("name", metavar="BUCKET", help="which must be empty")
    _path(group.add("list", _bucket_list, "buckets and their owners", options=False))


def _begin(args: argparse.Namespace, level: str = "warning") -> None:
    """Raises ConfigError without the libraries of the extra."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        packages = " ".join(f"python3-{name}" for name in missing)
        raise ConfigError(
            f"s3fsx gateway needs {' and '.join(missing)}: pip install 's3fsx[gateway]', or apt install {packages}"
        )
    keep_private()
    log.setup(level, foreground=True, debug=args.debug)


def _serve(args: argparse.Namespace) -> int:
    _begin(args, "info")
    from ..gateway import serving

    serving.serve(_settings(args))
    return 0


def _settings(args: argparse.Namespace) -> Settings:
    from ..gateway.serving import Settings

    given: dict[str, Any] = {}
    if args.config:
        try:
            with open(args.config, "rb") as file:
                given = tomllib.load(file)
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise ConfigError(f"{args.config}: {error}") from None
        kinds = {field.name: type(field.default) for field in fields(Settings)}
        for name, value in given.items():
            if name not in kinds:
                raise ConfigError(f"{args.config}: no setting {name!r}; there are {', '.join(kinds)}")
            if name == "domain" and isinstance(value, list):
                given[name] = tuple(str(domain) for domain in value)
            elif not isinstance(value, kinds[name]):
                wanted = {bool: "true or false", tuple: "a list of texts"}.get(kinds[name], "a text in quotes")
                raise ConfigError(f"{args.config}: {name}: {wanted}")
    if args.path or args.upstream:
        given = {name: value for name, value in given.items() if name not in ("path", "upstream")}
    for field in fields(Settings):
        value = getattr(args, field.name, None)
        if value is not None and field.name != "domain":
            given[field.name] = value
    if args.domain:
        given["domain"] = tuple(args.domain)
    if args.tls:
        given["tls_cert"], given["tls_key"] = args.tls
    return Settings(**given)


def _beside(args: argparse.Namespace) -> None:
    """Of a command that is not the server. Raises ConfigError."""
    _begin(args)
    if not os.path.isdir(args.path):
        raise ConfigError(f"path {args.path}: no such directory")


def _loaded(args: argparse.Namespace) -> Accounts:
    _beside(args)
    from ..gateway import users

    return users.load(args.path)


def _change(args: argparse.Namespace, change: Callable[[Accounts], Accounts]) -> int:
    _beside(args)
    from ..gateway import users

    with users.alone(args.path):
        users.save(args.path, change(users.load(args.path)))
    return 0


def _change_with_key(args: argparse.Namespace, change: Callable[[Accounts], Accounts]) -> int:
    """The user has one key more, which is told once it is on disk."""
    access, secret = f"S3FX{secrets.token_hex(8).upper()}", secrets.token_urlsafe(30)

    def with_key(accounts: Accounts) -> Accounts:
        changed = change(accounts)
        return replace(changed, keys={**changed.keys, access: (args.name, secret)})

    _change(args, with_key)
    sys.stdout.write(f"user = {args.name}\naccess_key = {access}\nsecret_key = {secret}\n")
    return 0


def _user_add(args: argparse.Namespace) -> int:
    def change(accounts: Accounts) -> Accounts:
        from ..gateway.accounts import User, checked

        if args.name in accounts.users:
            raise ConfigError(f"there is a user {args.name}; a further key: s3fsx gateway key add")
        rights = dict(right.partition(":")[::2] for right in args.bucket)
        user = checked(User(args.name, rights, args.admin, args.read_only))
        return replace(accounts, users={**accounts.users, user.name: user})

    return _change_with_key(args, change)


def _known(accounts: Accounts, name: str) -> Accounts:
    """Raises ConfigError without that user."""
    if name not in accounts.users:
        raise ConfigError(f"no user {name}; there are: {', '.join(accounts.users) or 'none'}")
    return accounts


def _user_rm(args: argparse.Namespace) -> int:
    def change(accounts: Accounts) -> Accounts:
        _known(accounts, args.name)
        users = {name: user for name, user in accounts.users.items() if name != args.name}
        keys = {access: pair for access, pair in accounts.keys.items() if pair[0] != args.name}
        return replace(accounts, users=users, keys=keys)

    return _change(args, change)


def _user_list(args: argparse.Namespace) -> int:
    for user in _loaded(args).users.values():
        rights = [f"{name}:{right}" for name, right in user.buckets.items()]
        rights += ["admin"] * user.admin + ["read-only"] * user.read_only
        sys.stdout.write(f"{user.name}  {' '.join(rights) or 'own buckets'}\n")
    return 0


def _key_add(args: argparse.Namespace) -> int:
    return _change_with_key(args, lambda accounts: _known(accounts, args.name))


def _key_rm(args: argparse.Namespace) -> int:
    def change(accounts: Accounts) -> Accounts:
        if args.access_key not in accounts.keys:
            raise ConfigError(f"no access key {args.access_key}")
        keys = {access: pair for access, pair in accounts.keys.items() if access != args.access_key}
        return replace(accounts, keys=keys)

    return _change(args, change)


def _key_list(args: argparse.Namespace) -> int:
    for access, (name, _) in _loaded(args).keys.items():
        sys.stdout.write(f"{access}  {name}\n")
    return 0


def _begin_directory(args: argparse.Namespace) -> None:
    """Raises ConfigError where there are no buckets, as another S3 has them."""
    _beside(args)
    from ..gateway.upstream.owners import is_state

    if is_state(args.path):
        raise ConfigError(f"{args.path} is the state of a gateway in front of another S3: use an S3 client")


def _bucket_add(args: argparse.Namespace) -> int:
    _begin_directory(args)
    from ..gateway import users
    from ..gateway.buckets import valid
    from ..gateway.directory.shelf import Shelf
    from ..gateway.errors import S3Error
    from ..gateway.model import Bucket

    if args.owner != "admin":  # who may be that of --access-key-file, and is then in no list
        _known(users.load(args.path), args.owner)
    if not valid(args.name):
        raise ConfigError(f"bucket {args.name[:70]!r}: 3 to 63 lower-case letters, digits, dots and hyphens")
    try:
        Shelf(os.fsencode(args.path)).create(Bucket(args.name, 0, args.owner))
    except S3Error as error:
        raise ConfigError(f"bucket {args.name!r}: {error.message}") from None
    return 0


def _bucket_rm(args: argparse.Namespace) -> int:
    _begin_directory(args)
    from ..gateway.directory.shelf import Shelf
    from ..gateway.errors import S3Error

    shelf = Shelf(os.fsencode(args.path))
    try:
        shelf.claim()
        shelf.delete(args.name)
    except BlockingIOError:
        raise ConfigError(f"{args.path} is being served: delete the bucket with an S3 client") from None
    except S3Error as error:
        raise ConfigError(error.message) from None
    finally:
        shelf.release()
    return 0


def _bucket_list(args: argparse.Namespace) -> int:
    _begin_directory(args)
    from ..gateway.directory.shelf import Shelf

    for bucket in Shelf(os.fsencode(args.path)).buckets():
        sys.stdout.write(f"{bucket.name}  {bucket.owner or '-'}  {bucket.versioning or 'unversioned'}\n")
    return 0


def _fsck(args: argparse.Namespace) -> int:
    _begin_directory(args)
    from ..gateway.directory import fsck

    found = fsck.check(args.path, data=args.data, repair=args.repair, tell=lambda line: sys.stdout.write(line + "\n"))
    return 1 if found.damaged else 0
