"""``s3fsx doctor``."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import unquote
from urllib.request import getproxies_environment

from ..browse import tables
from ..configuration import config
from ..errors import ConfigError
from ..service import log
from ..service import report as config_report
from ..service.daemon import EXIT_OK, EXIT_TROUBLE, keep_private
from .buckets import SOURCE_HELP
from .parsing import Commands

if TYPE_CHECKING:
    from ..doctor.facts import Facts, Finding, Subject
    from ..doctor.gathering import Looked

_AWS_SECRETS = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


def add(commands: Commands) -> None:
    doctor = commands.add(
        "doctor",
        _doctor,
        "what is wrong on this machine, and how to mend it: settings, store, mounts, units, disks, kernel; changes "
        "nothing; exit code 1 when something does not work",
        help="what is wrong on this machine, and how to mend it",
    )
    doctor.add_argument(
        "target", metavar="SOURCE", nargs="?", default="", help=f"{SOURCE_HELP}; without: all of this machine"
    )
    doctor.add_argument("--json", action="store_true", help="as JSON")
    doctor.add_argument("--bundle", metavar="FILE", help="write what was found into FILE.tar.gz, without secrets")


def _doctor(args: argparse.Namespace) -> int:
    keep_private()
    log.setup("critical", foreground=True, debug=args.debug)  # what is wrong is in the findings
    from ..doctor import bundle, gathering, report, rules
    from ..doctor.facts import FAULT, Facts

    notes: list[str] = []
    looked = gathering.look(args.target, args.options, notes)
    secrets = _secrets(looked)
    facts = Facts(gathering.machine(), _asked(looked, secrets), tuple(notes))
    findings = rules.judge(facts)
    if args.bundle:
        files = _bundled(args, facts, findings)
        bundle.write(args.bundle, {name: report.masked(text, secrets) for name, text in files.items()})
        sys.stderr.write(f"s3fsx: {args.bundle}: written; look at it before you send it\n")
    if args.json:
        sys.stdout.write(json.dumps(report.document(facts, findings), indent=2) + "\n")
    else:
        sys.stdout.writelines(f"{tables.safe(line)}\n" for line in report.lines(facts, findings))
    return EXIT_TROUBLE if any(finding.severity == FAULT for finding in findings) else EXIT_OK


def _asked(looked: list[Looked], secrets: set[str]) -> tuple[Subject, ...]:
    """The subjects, each with what its store said, and with a log that can be shown."""
    from ..doctor.asking import ask_all
    from ..doctor.report import masked

    able = [item for item in looked if item.settings is not None]
    stores = dict(zip(map(id, able), ask_all([item.settings for item in able if item.settings]), strict=True))
    return tuple(
        replace(
            item.subject,
            store=stores.get(id(item)),
            log=tuple(masked(line, secrets) for line in item.subject.log),
        )
        for item in looked
    )


def _secrets(looked: list[Looked]) -> set[str]:
    found = {os.environ.get(name, "") for name in _AWS_SECRETS}
    proxies = list(getproxies_environment().values())
    for item in looked:
        if (settings := item.settings) is not None:
            found |= {settings.access_key, settings.secret_key, settings.session_token}
            proxies.append(settings.proxy)
    for proxy in proxies:
        userinfo = proxy.rpartition("@")[0].partition("://")[2]  # all of it, for a header has that
        password = userinfo.partition(":")[2]
        found |= {userinfo, unquote(userinfo), password, unquote(password)} if password else set()
    return found - {""}


def _bundled(args: argparse.Namespace, facts: Facts, findings: list[Finding]) -> dict[str, str]:
    from ..doctor import gathering, report

    files = {
        "report.txt": "".join(f"{line}\n" for line in report.lines(facts, findings)),
        "report.json": json.dumps(report.document(facts, findings), indent=2) + "\n",
        "mounts.txt": gathering.mounts(),
    }
    for subject in facts.subjects:
        if subject.name and not subject.config_error:
            try:
                effective = config.load(subject.name, args.options).effective
            except ConfigError:
                continue
            files[f"config-{subject.name}.txt"] = "".join(f"{line}\n" for line in config_report.config_lines(effective))
        if subject.log:
            files[f"log-{subject.name or 'mount'}.txt"] = "".join(f"{line}\n" for line in subject.log)
        if subject.unit is not None and (text := gathering.program("systemctl", "cat", subject.unit.name)):
            files[f"unit-{subject.name}.txt"] = report.unit_file(text)
    return files
