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
        "__init__", "configuration.__init__", "s3.__init__", "store.__init__", "local.__init__", "transfer.__init__",
        "fs.__init__", "kernel.__init__", "service.__init__", "store.checksum", "errors", "store.objects",
        "store.findings",
        "local.records", "local.intents", "store.sums", "fs.version", "fs.attributes", "layout", "store.parts",
        "transfer.window", "local.blockformat", "local.blockpolicy", "fs.tempnames", "local.nodecopy", "fs.survey",
        "configuration.values", "configuration.schema", "metrics.__init__", "metrics.prices", "metrics.histogram",
        "metrics.exposition", "metrics.catalogue", "s3.options", "configuration.settings", "configuration.aliases",
        "configuration.mountopts", "configuration.configdoc", "s3.sign", "s3.xml",
        "transfer.concurrency", "browse.__init__", "browse.names", "browse.keep", "browse.tables", "browse.walking",
        "browse.vma", "browse.tarwalk", "pve.__init__", "pve.presets", "pve.storagecfg", "pve.lifecycle",
        "doctor.__init__", "doctor.facts",
        "gateway.__init__", "gateway.directory.__init__", "gateway.upstream.__init__",
        "gateway.errors", "gateway.xml", "gateway.messages",
        "gateway.render", "gateway.target", "gateway.sigv4", "gateway.sigv2", "gateway.chunked", "gateway.crc",
        "gateway.checksums", "gateway.encryption",
        "gateway.ranges", "gateway.keynames", "gateway.buckets", "gateway.model", "gateway.conditions",
        "gateway.paging", "gateway.attributes", "gateway.acl", "gateway.accounts", "gateway.lifecycle", "gateway.form",
        "gateway.cors", "gateway.browsers", "gateway.opnames", "gateway.meter",
    ),
    "L1 resources": (
        "transfer.several", "transfer.slots", "transfer.threads", "safepath", "configuration.configfile",
        "configuration.credentials", "configuration.config", "service.log", "service.heap", "transfer.memory",
        "transfer.partbuffer", "store.patience", "store.endpoint", "metrics.traffic", "s3.errors", "s3.body",
        "s3.params", "s3.answers", "s3.lanes", "s3.http", "s3.tls", "s3.connections", "s3.wire", "s3.lean",
        "s3.client", "s3.hidden", "s3.calls", "s3.batch", "s3.effects", "s3.store", "s3.cold", "store.sumstore",
        "store.verified", "local.cache", "local.blockfile", "local.blockcache", "local.journal", "service.status",
        "metrics.server", "metrics.textfile", "service.lastwords", "gateway.backend", "gateway.directory.files",
        "gateway.directory.records", "gateway.directory.names", "gateway.directory.walk",
        "gateway.directory.versions", "gateway.directory.space", "gateway.directory.uploads",
        "gateway.directory.shelf", "gateway.directory.provider", "gateway.directory.fsck", "gateway.connection",
        "gateway.http", "gateway.users", "gateway.upstream.owners",
        "gateway.upstream.client",
    ),
    "L2 domain": (
        "fs.protection", "fs.compositeetags", "fs.gone", "fs.unpublished", "fs.upload", "fs.copies", "fs.changes",
        "fs.content", "fs.writer", "fs.tree", "fs.reader", "fs.pages", "fs.merge", "fs.exact", "fs.walks",
        "fs.listing", "fs.publisher", "fs.waiting", "fs.recover", "fs.takeover", "fs.dirmove", "fs.namespace",
        "fs.files", "fs.mirror", "browse.stream", "browse.filters", "browse.checked", "browse.catalog",
        "browse.listing", "browse.guestconfig", "browse.partial", "browse.fetch", "gateway.payload", "gateway.call",
        "gateway.locking", "gateway.listops", "gateway.objectops", "gateway.uploadops", "gateway.detailops",
        "gateway.bucketops", "gateway.aclops", "gateway.corsops", "gateway.postops",
        "gateway.gateway", "gateway.expiring", "gateway.upstream.passing", "gateway.upstream.forward",
    ),
    "L3 kernel": (
        "kernel.mountpoint", "service.state", "kernel.tuning", "kernel.callers", "kernel.forget", "kernel.replies",
        "kernel.xattrs", "kernel.operation", "kernel.handles", "kernel.fuse", "kernel.fuseloop",
    ),
    "L4 composition": (
        "service.daemon", "service.launch", "service.report", "service.health", "service.statusview", "s3.probe",
        "s3.trials", "s3.questions", "service.check", "service.ending", "service.snapshot", "service.mount",
        "service.recovercmd", "browse.source", "browse.place", "browse.thaw", "browse.verify", "browse.prune",
        "browse.notes", "browse.drill",
        "browse.textfile", "pve.places", "pve.plan", "pve.files", "pve.host", "pve.steps", "pve.asking",
        "pve.bucketrules", "pve.unfinished", "pve.setting_up", "pve.gathering", "pve.removing", "pve.plugins",
        "pve.importing", "pve.cooling", "gateway.serving",
        "doctor.rules", "doctor.report", "doctor.bundle", "doctor.asking", "doctor.gathering",
    ),
    "L5 commands": (
        "commands.__init__", "commands.parsing", "commands.mounting", "commands.state", "commands.metrics",
        "commands.buckets", "commands.checking", "commands.recovering", "commands.configuration", "commands.browsing",
        "commands.fetching", "commands.verifying", "commands.pruning", "commands.thawing", "commands.drilling",
        "commands.pve", "commands.doctoring", "commands.gateway", "cli", "__main__",
    ),
}
# fmt: on
ORDER = [module for modules in LAYERS.values() for module in modules]

# Third-party libraries and sqlite3: the modules that may know them. trio is for every layer but the pure one.
HOMES: dict[str, set[str]] = {
    "boto3": {"s3.client"},
    "botocore": {"s3.client", "s3.wire"},
    "diskcache": {"local.cache"},
    "isal": {"store.checksum"},
    "awscrt": {"gateway.crc"},
    "defusedxml": {"gateway.xml"},
    "h11": {"gateway.connection", "gateway.http", "gateway.upstream.client"},
    "sqlite3": {"local.journal", "local.cache"},  # cache: the errors that come through diskcache
    "pyfuse3": {
        "kernel.forget",
        "kernel.fuse",
        "kernel.fuseloop",
        "kernel.handles",
        "kernel.replies",
        "kernel.operation",
        "service.mount",
    },
    "trio": {m for layer, modules in LAYERS.items() if layer != "L0 pure" for m in modules},
}
# What a pure module has no business with.
IMPURE = {"socket", "subprocess", "threading", "select", "selectors", "fcntl", "signal", "ssl", "http", "tempfile"}
INTERFACE = "store.objects"  # its coroutines have no bodies
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
    assert not [node for node in ast.walk(source) if isinstance(node, ast.AsyncFunctionDef) and module != INTERFACE]
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
