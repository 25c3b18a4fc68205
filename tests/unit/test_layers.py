"""The architecture as a test: who may import whom, and how large a module may be."""

from __future__ import annotations

import ast
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "s3fsx"

# Lowest first. A module imports from lower layers, and within its layer only what stands before it: no cycle can hide.
# fmt: off
LAYERS: dict[str, tuple[str, ...]] = {
    "L0 pure": (
        "__init__", "checksum", "errors", "objects", "records", "intents", "sums", "version", "attributes", "layout",
        "parts", "window", "blockformat", "blockpolicy", "tempnames", "nodecopy", "survey", "values", "schema",
        "metrics.__init__", "metrics.prices", "metrics.histogram", "metrics.exposition", "metrics.catalogue",
        "settings", "aliases", "mountopts", "configdoc", "s3options", "s3sign", "s3xml", "concurrency",
        "browse.__init__", "browse.names", "browse.keep", "browse.tables", "browse.walking", "browse.vma",
        "browse.tarwalk", "pve.__init__", "pve.presets", "pve.storagecfg", "pve.lifecycle",
    ),
    "L1 resources": (
        "several", "slots", "threads", "safepath", "configfile", "credentials", "config", "log", "heap", "memory",
        "partbuffer", "patience", "endpoint", "metrics.traffic", "s3errors", "s3body", "s3params", "s3answers",
        "s3lanes", "s3http", "s3tls", "s3connections", "s3wire", "s3lean", "s3client", "s3hidden", "s3calls",
        "s3batch", "s3effects", "s3", "s3cold", "sumstore", "verified", "cache", "blockfile", "blockcache", "journal",
        "status", "metrics.server", "metrics.textfile", "lastwords",
    ),
    "L2 domain": (
        "protection", "compositeetags", "gone", "unpublished", "upload", "copies", "changes", "content", "writer",
        "tree", "reader", "pages", "merge", "exact", "walks", "listing", "publisher", "waiting", "recover",
        "takeover", "dirmove", "namespace", "files", "mirror", "browse.stream", "browse.filters", "browse.checked",
        "browse.catalog", "browse.listing", "browse.guestconfig", "browse.partial", "browse.fetch",
    ),
    "L3 kernel": (
        "mountpoint", "state", "kernel", "callers", "forget", "replies", "xattrs", "operation", "handles", "fuse",
        "fuseloop",
    ),
    "L4 composition": (
        "daemon", "launch", "report", "health", "statusview", "probe", "check", "ending", "snapshot", "mount",
        "recovercmd", "browse.source", "browse.place", "browse.thaw", "browse.verify", "browse.prune", "browse.notes",
        "browse.drill", "browse.textfile", "pve.places", "pve.plan", "pve.files", "pve.host", "pve.steps",
        "pve.asking", "pve.bucketrules", "pve.unfinished", "pve.setting_up", "pve.gathering", "pve.removing",
        "pve.plugins", "pve.importing", "pve.cooling",
    ),
    "L5 commands": (
        "commands.__init__", "commands.parsing", "commands.mounting", "commands.state", "commands.metrics",
        "commands.checking", "commands.recovering", "commands.configuration", "commands.buckets", "commands.browsing",
        "commands.fetching", "commands.verifying", "commands.pruning", "commands.thawing", "commands.drilling",
        "commands.pve", "cli", "__main__",
    ),
}
# fmt: on
ORDER = [module for modules in LAYERS.values() for module in modules]

# Third-party libraries and sqlite3: the modules that may know them. trio is for every layer but the pure one.
HOMES: dict[str, set[str]] = {
    "boto3": {"s3client"},
    "botocore": {"s3client", "s3wire"},
    "diskcache": {"cache"},
    "isal": {"checksum"},
    "sqlite3": {"journal", "cache"},  # cache: the errors that come through diskcache
    "pyfuse3": {"forget", "fuse", "fuseloop", "handles", "replies", "operation", "mount"},
    "trio": {m for layer, modules in LAYERS.items() if layer != "L0 pure" for m in modules},
}
# What a pure module has no business with.
IMPURE = {"socket", "subprocess", "threading", "select", "selectors", "fcntl", "signal", "ssl", "http", "tempfile"}
LIMIT = 400  # lines of one module
MEDIAN = 200

FILES = sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def imports(tree: ast.AST, modules: set[str], package: str = "s3fsx") -> Iterator[tuple[str, str]]:
    """(top-level package, dotted rest): wherever the import stands, in a function or under TYPE_CHECKING as well.
    package: where the module stands, for relative imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top, _, rest = alias.name.partition(".")
                yield top, rest or "__init__"
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            top, *rest_parts = above + (node.module or "").split(".") if node.module else above
            rest = ".".join(rest_parts)
            if top == "s3fsx" and rest not in modules:  # a package: each name may be one of its modules
                for alias in node.names:
                    name = f"{rest}.{alias.name}".lstrip(".")
                    yield top, name if name in modules else f"{rest}.__init__".lstrip(".")
            else:
                yield top, rest or "__init__"


def package_of(path: Path) -> str:
    return ".".join(("s3fsx", *path.relative_to(PACKAGE).parent.parts))


MODULES = {name_of(path) for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_every_module_has_a_layer_and_imports_only_downward(path: Path) -> None:
    module = name_of(path)
    assert module in ORDER, f"{module} has no layer: put it into the table of this test"
    for top, rest in imports(ast.parse(path.read_text()), MODULES, package_of(path)):
        if top == "s3fsx":
            assert rest in ORDER, f"{module} imports s3fsx.{rest}, which has no layer"
            assert ORDER.index(rest) < ORDER.index(module), f"{module} imports {rest}, which is not below it"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_each_library_has_its_home(path: Path) -> None:
    module = name_of(path)
    for top, _ in imports(ast.parse(path.read_text()), MODULES, package_of(path)):
        if top in HOMES:
            assert module in HOMES[top], f"{module} imports {top}, whose home is {sorted(HOMES[top])}"
        else:
            assert top == "s3fsx" or top in sys.stdlib_module_names, f"{module} imports {top}, which has no home"


@pytest.mark.parametrize("module", sorted(MODULES & set(LAYERS["L0 pure"])))
def test_the_pure_layer_does_no_io(module: str) -> None:
    path = PACKAGE / f"{module.replace('.', '/')}.py"
    source = ast.parse(path.read_text())
    assert not IMPURE & {top for top, _ in imports(source, MODULES, package_of(path))}
    assert not [node for node in ast.walk(source) if isinstance(node, ast.AsyncFunctionDef) and module != "objects"]
    assert not [n for n in ast.walk(source) if isinstance(n, ast.Call) and getattr(n.func, "id", "") == "open"]


def test_the_table_names_no_module_twice() -> None:
    assert len(ORDER) == len(set(ORDER))


def test_modules_stay_small() -> None:
    lines = {name_of(path): len(path.read_text().splitlines()) for path in FILES}
    assert {name: n for name, n in lines.items() if n > LIMIT} == {}
    assert statistics.median(lines.values()) < MEDIAN


def test_the_import_finder_sees_what_it_must() -> None:
    source = """
import os.path, s3fsx.tree
from s3fsx import errors, __version__
def f():
    from .cache import Cache
    from . import tree
    import boto3.session
"""
    modules = {"errors", "cache", "tree", "commands.parsing"}
    assert list(imports(ast.parse(source), modules)) == [
        ("os", "path"),
        ("s3fsx", "tree"),
        ("s3fsx", "errors"),
        ("s3fsx", "__init__"),
        ("s3fsx", "cache"),
        ("s3fsx", "tree"),
        ("boto3", "session"),
    ]
    source = (
        "from .. import errors, __version__; from ..cache import Cache; from . import parsing; from .parsing import x"
    )
    assert list(imports(ast.parse(source), modules, "s3fsx.commands")) == [
        ("s3fsx", "errors"),
        ("s3fsx", "__init__"),
        ("s3fsx", "cache"),
        ("s3fsx", "commands.parsing"),
        ("s3fsx", "commands.parsing"),
    ]
