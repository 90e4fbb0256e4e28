import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from dlbench import __version__, environment
from dlbench.report import records
from dlbench.report.records import Rank, Record, RecordError, Workload

DESCRIBED = environment.describe()


def rank(number: int, samples: int = 64, wall_s: float = 2.0) -> Rank:
    return Rank(
        rank=number,
        host="node0",
        samples=samples,
        wall_s=wall_s,
        step_s=(wall_s / 2, wall_s / 2),
        input_wait_s=None,
        comm_wait_s=0.25,
        first_step_s=None,
        conditions={},
        peak_bytes={"host_rss": 1 << 30, "gpu_allocated": None},
    )


def record(*ranks: Rank, **changes: Any) -> Record:
    ranks = ranks or (rank(0),)
    workload = Workload(
        id="train/segnet/vaihingen",
        model="segnet",
        data="vaihingen",
        precision="float32",
        ranks=len(ranks),
        batch_per_rank=32,
        shape=(128, 128, 3),
        mode="train",
    )
    return records.now(
        workload,
        ranks,
        setup=records.setup("baseline", DESCRIBED),
        quality={"miou": 0.5, "kappa": None},
        **changes,
    )


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "record.json"
    original = record(rank(0), rank(1), energy_j=12.5)
    records.write(original, path)
    assert records.read(path) == original
    assert [p.name for p in path.parent.iterdir()] == ["record.json"]

    content = json.loads(path.read_text())
    assert list(content) == [
        "schema", "created", "workload", "setup", "ranks", "energy_j", "quality", "code",
        "configuration",
    ]  # fmt: skip
    assert content["schema"] == "dlbench.result/2"
    assert content["created"].endswith("Z")
    assert content["ranks"][1]["input_wait_s"] is None
    assert content["quality"]["kappa"] is None
    assert "throughput" not in path.read_text()


def test_throughput_is_all_samples_by_the_slowest_rank() -> None:
    # Neither the mean of the ranks' rates (40) nor rank 0's rate times two (100).
    assert record(rank(0, 50, 1.0), rank(1, 30, 1.0)).throughput == 80
    assert record(rank(0, 50, 1.0), rank(1, 50, 4.0)).throughput == 25
    assert record(rank(0, 0, 0.0)).throughput is None


def test_time_is_kept_in_utc() -> None:
    local = datetime.fromisoformat("2025-11-22T13:00:00+02:00")
    content = record().to_json() | {"created": local.isoformat()}
    assert Record.model_validate(content).created == datetime(2025, 11, 22, 11, tzinfo=UTC)
    assert Record.model_validate(content).to_json()["created"] == "2025-11-22T11:00:00Z"
    with pytest.raises(ValidationError, match="timezone"):
        Record.model_validate(content | {"created": "2025-11-22T13:00:00"})


def test_a_failed_write_leaves_the_old_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "record.json"
    old = record()
    records.write(old, path)

    def fail(_: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="no space"):
        records.write(record(energy_j=1.0), path)
    assert records.read(path) == old
    assert [p.name for p in tmp_path.iterdir()] == ["record.json"]


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    records.write(record(), path)
    whole = path.read_bytes()
    for length in (0, 1, len(whole) // 2, len(whole) - 3):
        path.write_bytes(whole[:length])
        with pytest.raises(RecordError, match=r"record\.json is not whole JSON"):
            records.read(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecordError, match="not whole JSON"):
        records.read(path)
    with pytest.raises(RecordError, match="there is no result record"):
        records.read(tmp_path / "absent.json")


@pytest.mark.parametrize("schema", ["dlbench.result/1", None, 1])
def test_another_schema_is_refused(tmp_path: Path, schema: Any) -> None:
    path = tmp_path / "record.json"
    path.write_text(json.dumps(record().to_json() | {"schema": schema}))
    with pytest.raises(RecordError, match=rf"record\.json has schema {schema!r}; .*result/2"):
        records.read(path)
    path.write_text("[1, 2]")
    with pytest.raises(RecordError, match="has schema None"):
        records.read(path)


def test_missing_and_unknown_keys_are_all_named(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    content = record().to_json()
    del content["energy_j"], content["workload"]["mode"]
    content["ranks"][0]["peak"] = 1
    path.write_text(json.dumps(content))
    with pytest.raises(RecordError) as error:
        records.read(path)
    for part in ("record.json", "energy_j", "workload.mode", "ranks.0.peak"):
        assert part in str(error.value)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -1.0])
def test_impossible_numbers_are_refused(number: float) -> None:
    with pytest.raises(ValidationError, match="energy_j"):
        record(energy_j=number)
    with pytest.raises(ValidationError, match="wall_s"):
        rank(0, wall_s=number)


def test_nan_in_the_scores_is_not_written(tmp_path: Path) -> None:
    bad = record().model_copy(update={"quality": {"miou": float("nan")}})
    with pytest.raises(ValueError, match="not JSON compliant"):
        records.write(bad, tmp_path / "record.json")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("numbers", [(0, 0), (1, 0), (0, 2), (1,)])
def test_every_rank_is_there_once(numbers: tuple[int, ...]) -> None:
    with pytest.raises(ValidationError, match=r"ranks .* once, in order"):
        record(*map(rank, numbers))


def test_many_files_of_both_kinds(tmp_path: Path) -> None:
    first, second, third = record(), record(energy_j=2.0), record(energy_j=3.0)
    records.write(first, tmp_path / "a.json")
    extra = {"record": second.to_json()}
    benchmark = {"fullname": "bench_x.py::bench_x", "extra_info": extra}
    plain = {"fullname": "bench_x.py::bench_y", "extra_info": {}}
    (tmp_path / "b.json").write_text(json.dumps({"benchmarks": [plain, benchmark]}))
    records.write(third, tmp_path / "c.json")
    paths = [tmp_path / name for name in ("a.json", "b.json", "c.json")]
    assert records.read_many(paths) == [first, second, third]

    del extra["record"]["code"]
    (tmp_path / "b.json").write_text(json.dumps({"benchmarks": [benchmark]}))
    with pytest.raises(RecordError, match=r"b\.json, benchmark bench_x\.py::bench_x .*code"):
        records.read_many(paths)


@pytest.mark.parametrize(
    ("benchmarks", "message"),
    [
        ({"a": 1}, "'benchmarks' is no list"),
        ([None], "a benchmark is None, expected a mapping"),
        ([{"extra_info": {"record": {}}}], "benchmark None has schema None"),
    ],
)
def test_what_is_no_file_of_benchmarks_is_named(
    benchmarks: Any, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "b.json"
    path.write_text(json.dumps({"benchmarks": benchmarks}))
    with pytest.raises(RecordError, match=rf"b\.json.*{message}"):
        records.read_many([path])


def test_benchmarks_without_extra_information_hold_no_record(tmp_path: Path) -> None:
    path = tmp_path / "b.json"
    path.write_text(json.dumps({"benchmarks": [{"fullname": "a"}, {"extra_info": []}]}))
    assert records.read_many([path]) == []


def test_the_setup_and_the_code_are_described_once() -> None:
    made = record()
    assert made.setup.name == "baseline"
    assert made.setup.fingerprint == environment.fingerprint(DESCRIBED)
    assert made.setup.environment["cpu"] == DESCRIBED["cpu"]
    assert "code" not in made.setup.environment
    assert made.code.model_dump() == {"version": __version__, **DESCRIBED["code"]}


def test_no_tensorflow_is_loaded() -> None:
    modules = "dlbench.report.records, dlbench.metrics, dlbench.pictures, dlbench.bench.memory"
    script = f"import sys, dlbench.bench.timing, {modules}\n" + (
        "print([m for m in ('tensorflow', 'keras', 'matplotlib') if m in sys.modules])"
    )
    loaded = subprocess.check_output([sys.executable, "-c", script], text=True)
    assert loaded.strip() == "[]"
