"""What `make audit` makes of pip-audit's report; without a network there is no service to ask."""

import pytest

from install.audit import AuditError, audit, summarise

FINE = {"name": "numpy", "version": "2.4.6", "vulns": []}
SKIPPED = {"name": "keras", "skip_reason": "Dependency not found on PyPI"}
OLD = {
    "name": "pillow",
    "version": "9.5.0",
    "vulns": [
        {"id": "PYSEC-1", "aliases": ["CVE-1"], "fix_versions": ["10.0.1"], "description": "long"},
        {"id": "PYSEC-2", "fix_versions": []},
    ],
}


def test_nothing_found_is_one_line() -> None:
    report = {"dependencies": [FINE, {**FINE, "name": "scipy"}], "fixes": []}
    assert summarise(report) == "2 packages, none with a known vulnerability"


def test_each_finding_is_told_with_its_remedy() -> None:
    with pytest.raises(AuditError) as raised:
        summarise({"dependencies": [FINE, OLD, SKIPPED]})
    assert str(raised.value).splitlines() == [
        "of 3 packages",
        "    pillow 9.5.0: PYSEC-1, CVE-1, fixed in 10.0.1",
        "    pillow 9.5.0: PYSEC-2, no fix",
        "    not checked, as the service does not know them: keras",
    ]


def test_a_service_that_knows_no_package_has_checked_nothing() -> None:
    # pip-audit itself then says that it found no known vulnerabilities.
    with pytest.raises(AuditError, match=r"nothing was checked: .* knew none of 2 packages"):
        summarise({"dependencies": [SKIPPED, {**SKIPPED, "name": "h5py"}]})


def test_an_audit_without_a_report_has_checked_nothing() -> None:
    # Where pip-audit is installed it refuses the option; where it is not, Python does not find it.
    with pytest.raises(AuditError, match=r"nothing was checked: .* code \d \(.+\)") as raised:
        audit(["--no-such-option"])
    assert "\n" not in str(raised.value)
