"""Ask the public vulnerability database about every pinned release, Horovod's included.

    make audit [ARGS="--vulnerability-service osv"]

pip-audit asks, this reads its answer: with a release that the service does not know pip-audit is
content, even if it knows none of them, as behind an index that has packages alone. Ends with the
status 1 where something is vulnerable or was not checked.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from install import horovod
from install.hashes import HASHES

ANOTHER = "another may be: make audit ARGS='--vulnerability-service osv'"


class AuditError(RuntimeError):
    """Something is vulnerable or was not checked; the message says what."""


def summarise(report: Mapping[str, Any]) -> str:
    """Return one line on pip-audit's JSON report; raise AuditError unless all is well."""
    packages = report["dependencies"]
    skipped = [package["name"] for package in packages if "skip_reason" in package]
    if len(skipped) == len(packages):
        raise AuditError(
            f"nothing was checked: the vulnerability service cannot be reached from here, it knew "
            f"none of {len(packages)} packages; {ANOTHER}"
        )
    findings = [
        f"{package['name']} {package['version']}: "
        f"{', '.join([found['id'], *found.get('aliases', [])])}, "
        f"{'fixed in ' + ', '.join(found['fix_versions']) if found['fix_versions'] else 'no fix'}"
        for package in packages
        for found in package.get("vulns", [])
    ]
    if skipped:
        findings.append(f"not checked, as the service does not know them: {', '.join(skipped)}")
    if findings:
        raise AuditError("\n    ".join([f"of {len(packages)} packages", *findings]))
    return f"{len(packages)} packages, none with a known vulnerability"


def audit(arguments: list[str]) -> str:
    """Run pip-audit with further arguments and return one line; raise AuditError as above."""
    with tempfile.TemporaryDirectory(prefix="dlbench-audit-") as folder:
        report, build = Path(folder, "report.json"), Path(folder, "horovod.txt")
        build.write_text(f"horovod=={horovod.VERSION} --hash=sha256:{horovod.SDIST_SHA256}\n")
        # Taken as they stand, without pip: all of them together cannot be installed.
        files = ["--disable-pip", "-r", str(HASHES), "-r", str(build)]
        output = ["--progress-spinner", "off", "--format", "json", "--output", str(report)]
        command = [sys.executable, "-m", "pip_audit", *files, *output, *arguments]
        result = subprocess.run(command, capture_output=True, text=True)
        if not report.exists():
            last = (result.stderr.splitlines() or ["nothing said"])[-1]
            raise AuditError(
                f"nothing was checked: pip-audit ended with code {result.returncode} ({last}); "
                f"where its service cannot be reached, {ANOTHER}"
            )
        return summarise(json.loads(report.read_text()))


if __name__ == "__main__":
    try:
        print(f"   {audit(sys.argv[1:])}")
    except AuditError as error:
        sys.exit(f"install/audit.py: {error}")
