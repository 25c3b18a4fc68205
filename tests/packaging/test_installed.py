"""The real-mount suite on the package as it is installed: Debian's Python, pyfuse3, trio and boto3, 12's the oldest.

contrib/test-deb.sh runs all of it, or what one says, in the same way.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.packaging.conftest import run

pytestmark = [pytest.mark.slow, pytest.mark.mount, pytest.mark.rgw]

LIMIT = 2700  # seconds; some minutes on an idle machine, of which one is apt and pip
# The daemon and FUSE, what Proxmox does, an outage: where a library of another version could behave in another way.
SUITES = {
    "12": ["mounting", "vzdump", "pve", "posix", "crippled", "outage"],
    "13": ["mounting", "outage"],
}
LEAST = {"12": 110, "13": 25}  # tests, of 119 and 28


@pytest.mark.parametrize("release", sorted(SUITES))
def test_the_mount_suite_passes_on_it(package: Path, release: str, capsys: pytest.CaptureFixture[str]) -> None:
    files = [f"tests/mount/test_{name}.py" for name in SUITES[release]]
    arguments = [*files, "-m", "not slow", "--tb=short", "--color=no", "--durations=15"]
    out = run(["env", f"DEB={package}", "sh", "contrib/test-deb.sh", release, *arguments], limit=LIMIT)
    sys.stdout.write(out)
    ended = re.findall(r"^=+ (\d+ (?:passed|failed).*) in [\d.]+s.* =+$", out, re.MULTILINE)
    again = out.partition("== pytest, again: what failed\n")[2]
    with capsys.disabled():  # also when all is well at last: what failed at first is to be seen
        sys.stdout.write(f"\nDebian {release}, installed: {'; again: '.join(ended)}\n{again}")
    passed = [int(number) for line in ended for number in re.findall(r"(\d+) passed", line)]
    assert sum(passed) >= LEAST[release]
    assert "skipped" not in ended[0]
