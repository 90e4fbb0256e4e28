"""What is planted in launches is found and named, and what is not there is not."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import synthetic_launches as synthetic

from dlbench.report import load, markdown, option_defaults, records
from dlbench.report.compare import CompareError, Comparison, Row, compare
from dlbench.report.findings import of_setup
from dlbench.report.records import Record

CLEAN = {"step_s": 0.1, "rss": 1 << 30}


def noisy(value: float, seed: int, cv: float = 0.004) -> float:
    return float(value * (1 + cv * np.random.default_rng(seed).standard_normal()))


def launches(count: int = 6, name: str = "A", seed: int = 0, **planted: Any) -> list[Record]:
    made = CLEAN | planted
    return [
        synthetic.launch(
            number,
            name=name,
            **made
            | {
                "step_s": noisy(made["step_s"], seed + number),
                "rss": noisy(made["rss"], seed + number + 50, 0.001),
            },
        )
        for number in range(count)
    ]


@pytest.fixture
def frames(tmp_path: Path) -> Callable[..., list[pd.DataFrame]]:
    """``frames(A, B, ...)``: the tables of lists of records, each read from its own files."""

    def read(*sides: Sequence[Record]) -> list[pd.DataFrame]:
        found = []
        for number, side in enumerate(sides):
            folder = tmp_path / str(number)
            folder.mkdir()
            found.append(load(synthetic.write(side, folder)))
        return found

    return read


def rows(made: Comparison) -> dict[str, Row]:
    return {row.measure: row for row in (*made.rows, *made.quality)}


def kinds(made: Comparison) -> list[str]:
    return [cause.kind for cause in made.causes]


def test_equal_setups_are_the_same(frames: Callable[..., list[pd.DataFrame]]) -> None:
    made = compare(*frames(launches(8), launches(8, "B", seed=100)))
    found = rows(made)
    assert found["throughput"].verdict == "same"
    assert found["peak_host_rss"].verdict == "same"
    assert found["throughput"].need is None
    assert made.causes == made.differences == made.only_in_baseline == []
    assert (made.baseline, made.candidate) == ("A", "B")


@pytest.mark.parametrize(
    ("planted", "measure", "verdict", "ratio"),
    [
        ({"step_s": 0.1 / 0.95}, "throughput", "slower", 0.95),
        ({"step_s": 0.08}, "throughput", "faster", 1.25),
        ({"rss": 1.1 * 2**30}, "peak_host_rss", "more", 1.1),
        ({"rss": 0.8 * 2**30}, "peak_host_rss", "less", 0.8),
    ],
)
def test_a_planted_difference_is_found(
    frames: Callable[..., list[pd.DataFrame]],
    planted: dict[str, float],
    measure: str,
    verdict: str,
    ratio: float,
) -> None:
    made = compare(*frames(launches(), launches(6, "B", seed=100, **planted)))
    row = rows(made)[measure]
    assert row.verdict == verdict
    assert row.low is not None
    assert row.ratio is not None
    assert row.high is not None
    assert row.low <= row.ratio <= row.high
    assert row.ratio == pytest.approx(ratio, abs=0.01)
    assert row.p == pytest.approx(2 / 924)
    others = [one for one in made.rows if one.measure != measure]
    assert others
    assert {one.verdict for one in others} <= {"same", "cannot tell"}


@pytest.mark.parametrize(
    ("planted", "kind", "words"),
    [
        (
            {"rss": 1.1 * 2**30},
            "memory growth",
            ["train/segnet/miniature", "host_rss by 10", "1.000 to 1.10"],
        ),
        (
            {"busy": (0.4, 0.8), "step_s": 0.15},
            "straggler",
            ["rank 1 on node1", "6 of 6 launches of the candidate 'B'", "2.00 x", "own compute"],
        ),
        (
            {"busy": (0.9, 0.5), "input_wait": (0.5, 0.01)},
            "straggler",
            ["rank 0 on node0", "1.80 x", "waiting for its own input"],
        ),
        (
            {"input_wait": (0.4, 0.4)},
            "input stall",
            ["waiting for input takes 40.0% of the candidate's time, 1.0% of the baseline's"],
        ),
        ({"busy": (0.5, 0.5)}, "communication", ["other ranks takes 50.0%"]),
        (
            {"conditions": {"throttled": True, "gpu": {"throttle_reasons": ["power cap"]}}},
            "throttling",
            ["6 of 6 launches of the candidate", "power cap"],
        ),
        ({"conditions": {"foreign_processes": 2}}, "foreign process", ["node0, node1"]),
        ({"conditions": {"busy": True, "other_load": 1.26}}, "busy machine", ["up to 1.3 cores"]),
        ({"dirty": True}, "code", ["uncommitted changes in 6"]),
        ({"commit": "b" * 40}, "code", ["aaaaaaaaaaaa and bbbbbbbbbbbb"]),
        ({"minute": 10_000}, "order", ["came before", "in alternation"]),
    ],
)
def test_a_planted_cause_is_named(
    frames: Callable[..., list[pd.DataFrame]], planted: dict[str, Any], kind: str, words: list[str]
) -> None:
    candidate = launches(6, "B", seed=100, **planted)
    if "minute" in planted:  # each its own
        candidate = [
            one.model_copy(update={"created": one.created.replace(second=second)})
            for second, one in enumerate(candidate)
        ]
    made = compare(*frames(launches(), candidate))
    (text,) = [str(cause) for cause in made.causes if cause.kind == kind]
    for word in words:
        assert word in text
    assert "baseline 'A'" not in "".join(map(str, made.causes))
    # A straggler makes the others wait, which is told as well; nothing else is.
    assert set(kinds(made)) <= {kind, *({"communication", "input stall"} & set(kinds(made)))}
    if kind not in ("straggler", "communication"):
        assert kinds(made) == [kind]


def test_a_launch_of_several_workloads_is_counted_once(
    tmp_path: Path,
) -> None:
    """Two workloads of two launches, of which one ran slowed and changed code."""
    rows = []
    for number, disturbed in enumerate((False, True)):
        more = {"conditions": {"throttled": True}, "dirty": True} if disturbed else {}
        for kind in ("train", "inference"):
            (one,) = launches(1, "B", seed=number, **more)
            workload = one.workload.model_copy(update={"id": f"{kind}/segnet"})
            path = tmp_path / f"{number}-{kind}.json"
            records.write(one.model_copy(update={"workload": workload}), path)
            rows.append(load([path]).assign(file=f"{number}.json", label=kind))
    told = [str(cause) for cause in of_setup(pd.concat(rows), "B")]
    assert [text for text in told if "1 of 2 launches" in text and "clocks" in text]
    assert [text for text in told if "uncommitted changes in 1 of its launches" in text]


def test_conditions_that_say_nothing_is_wrong_are_not_told(
    frames: Callable[..., list[pd.DataFrame]],
) -> None:
    calm = {"throttled": False, "foreign_processes": 0, "busy": None, "gpu": None}
    made = compare(*frames(launches(), launches(6, "B", seed=100, conditions=calm)))
    assert made.causes == []


def test_one_slow_launch_makes_no_straggler(frames: Callable[..., list[pd.DataFrame]]) -> None:
    hit = launches(6, "B", seed=100)
    hit[2] = synthetic.launch(2, name="B", busy=(0.4, 0.8))
    assert "straggler" not in kinds(compare(*frames(launches(), hit)))


def test_a_single_launch_cannot_tell(frames: Callable[..., list[pd.DataFrame]]) -> None:
    made = compare(*frames(launches(1), launches(1, "B", seed=100, step_s=0.2)))
    row = rows(made)["throughput"]
    assert (row.verdict, row.need, row.detectable) == ("cannot tell", 4, None)
    assert markdown.verdict(row) == "cannot tell: run 4 more"
    assert made.wanted == 5
    assert "5 of each setup, launched in turn, may bring" in markdown.comparison(made)


def test_four_workloads_need_six_launches(frames: Callable[..., list[pd.DataFrame]]) -> None:
    names = [f"train/segnet/set{number}" for number in range(4)]

    def side(count: int, name: str, slow: str | None, seed: int) -> list[Record]:
        return [
            one
            for number, workload in enumerate(names)
            for one in launches(
                count,
                name,
                seed + 1000 * number,
                workload=workload,
                step_s=0.1 / 0.95 if workload == slow else 0.1,
            )
        ]

    few = compare(*frames(side(5, "A", None, 0), side(5, "B", names[2], 100)))
    speed = [row for row in few.rows if row.measure == "throughput"]
    assert {(row.verdict, row.need) for row in speed} == {("cannot tell", 1)}


def test_noise_is_told_in_place_of_a_verdict(frames: Callable[..., list[pd.DataFrame]]) -> None:
    steps = np.array([0.1, 0.11, 0.09, 0.105, 0.095, 0.1])
    sides = [
        [synthetic.launch(n, name=name, step_s=step) for n, step in enumerate(steps * factor)]
        for name, factor in (("A", 1.0), ("B", 1.05))
    ]
    row = rows(compare(*frames(*sides)))["throughput"]
    assert row.verdict == "cannot tell"
    assert row.variation == pytest.approx(0.07, abs=0.01)
    assert row.detectable is not None
    assert row.detectable > 0.15
    assert "these launches show" in markdown.verdict(row)
    assert "40 launches of each would not either" in markdown.verdict(row)


def test_quality_stands_beside_speed(frames: Callable[..., list[pd.DataFrame]]) -> None:
    baseline = launches(6, quality={"rmse": 0.36, "training_size": {"mean_iou_all_classes": 0.8}})
    wrong = {"rmse": 0.36, "training_size": {"mean_iou_all_classes": 0.4}}
    made = compare(*frames(baseline, launches(6, "B", 100, step_s=0.05, quality=wrong)))
    found = rows(made)
    assert found["throughput"].verdict == "faster"
    assert (found["quality.mean_iou"].verdict, found["quality.mean_iou"].ratio) == ("worse", 0.5)
    # Deterministic: no variance at all.
    assert found["quality.rmse"].verdict == "same"
    assert found["quality.rmse"].variation == pytest.approx(0)


def test_scores_that_are_zero(frames: Callable[..., list[pd.DataFrame]]) -> None:
    zero, some = {"rmse": 0.0, "loss": 0.0}, {"rmse": 0.0, "loss": 0.5}
    sides = frames(launches(6, quality=zero), launches(6, "B", 100, quality=some))
    found = rows(compare(*sides))
    assert (found["quality.rmse"].verdict, found["quality.rmse"].ratio) == ("same", 1)
    assert (found["quality.loss"].verdict, found["quality.loss"].ratio) == ("worse", None)


def test_environments_are_ranked(frames: Callable[..., list[pd.DataFrame]]) -> None:
    def gpu(driver: str) -> dict[str, Any]:
        return {"driver": driver, "devices": [{"name": "A100", "memory_bytes": 80}] * 2}

    old = synthetic.environment(gpu=gpu("535"))
    new = synthetic.environment(
        gpu=gpu("550"),
        packages={"numpy": "2.5.0", "rasterio": "1.4.4"},
        platform={"release": "6.8", "hostname": "node7"},
        cpu={"model": "AMD EPYC", "flags": ["avx2"], "cores_usable": 4},
        tensorflow={"version": "2.22.0", "intra_op_threads": 1},
        libraries={"libcudnn": {"version": "90500", "path": "/opt/libcudnn.so.9"}},
        variables={
            "TF_ENABLE_ONEDNN_OPTS": "0",
            "HOROVOD_GLOO_RENDEZVOUS_PORT": "99",
            "XLA_FLAGS": "--xla_dump_to=/tmp/job-1",
        },
        memory_bytes=(32 << 30) + 4096,
    )
    made = compare(*frames(launches(2, described=old), launches(2, "B", 100, described=new)))
    assert [(d.what, d.before, d.after) for d in made.differences] == [
        ("gpu.driver", "535", "550"),
        ("libraries.libcudnn.version", "–", "90500"),
        ("tensorflow.version", "2.21.0", "2.22.0"),
        ("cpu.cores_usable", "2", "4"),
        ("variables.TF_ENABLE_ONEDNN_OPTS", "1", "0"),
        ("cpu.flags", "avx512f", "–"),
        ("platform.release", "6.1", "6.8"),
        ("packages.numpy", "2.4.6", "2.5.0"),
        ("platform.hostname", "node0", "node7"),
    ]
    assert all(d.note for d in made.differences)


def test_what_cannot_be_compared(frames: Callable[..., list[pd.DataFrame]]) -> None:
    a, b, other, mixed = frames(
        launches(2),
        launches(2, "B", 100),
        launches(2, "B", 100, workload="train/deepvel/granulation"),
        [*launches(2, "B", 100), synthetic.launch(7, name="C")],
    )
    with pytest.raises(CompareError, match="no workload in common.*segnet.*deepvel"):
        compare(a, other)
    with pytest.raises(CompareError, match=r"2 launches are on both sides, the first from .*A0"):
        compare(a, a)
    with pytest.raises(CompareError, match=r"candidate holds .* 2 setups.*B0000.*C0000.*C2\.json"):
        compare(a, mixed)
    with pytest.raises(CompareError, match="the candidate holds no launch"):
        compare(a, load([]))
    both = compare(pd.concat([a, other.assign(setup="A")]), b)
    assert both.only_in_baseline == [
        "train/deepvel/granulation, float32, 2 x 4, 32x48x3, train, segnet, miniature"
    ]
    # A launch that is given twice is one launch.
    assert len(rows(compare(pd.concat([a, a]), b))["throughput"].baseline) == 2


def test_one_file_is_one_launch(tmp_path: Path, frames: Callable[..., list[pd.DataFrame]]) -> None:
    (other,) = frames(launches(2, "B", 100))
    benchmarks = [
        {"fullname": f"b.py::b[{number}]", "extra_info": {"record": record.to_json()}}
        for number, record in enumerate(launches(6))
    ]
    path = tmp_path / "six.json"
    path.write_text(json.dumps({"benchmarks": benchmarks}))
    with pytest.raises(CompareError, match=r"six\.json holds several results of 'train/segnet"):
        compare(load([path]), other)


def test_peers_cost_no_launches_and_get_no_verdict(tmp_path: Path) -> None:
    """Six launches tell of four workloads; with 20 peers among them they would tell of none."""
    ours = [f"pool/ours/{number}" for number in range(4)]
    peers = [f"pool/peer/{number}" for number in range(20)]

    def side(name: str, step_s: float) -> pd.DataFrame:
        paths = []
        for number in range(6):
            made = [
                synthetic.launch(
                    number, name=name, workload=workload, step_s=noisy(step_s, 100 * place + number)
                )
                for place, workload in enumerate([*ours, *peers])
            ]
            path = tmp_path / f"{name}{number}.json"
            paths.append(synthetic.write_benchmarks(made, path, peers))
        return load(paths)

    before, after = side("A", 0.1), side("B", 0.11)
    made = compare(before, after)
    speed = [row for row in made.rows if row.measure == "throughput"]
    assert [(row.name, row.verdict) for row in speed] == [(name, "slower") for name in ours]
    assert {row.name for row in made.rows} == set(ours)
    assert made.beside == 20
    assert "20 peers, bare kernels and controls" in markdown.comparison(made)
    alone = before[~before.judged]
    with pytest.raises(CompareError, match="the baseline holds peers, bare kernels and controls"):
        compare(alone, after)


def configured(width: float = 0.5, seed: int = 0, **more: Any) -> dict[str, Any]:
    experiment = {
        "seed": seed,
        "output": f"runs/{seed}",
        "data": {"root": f"/data/{seed}"},
        "model": {"options": {"width": width}},
    }
    return {"configuration": experiment | more}


def test_other_work_is_no_repeat(frames: Callable[..., list[pd.DataFrame]]) -> None:
    narrow, mixed, two_hosts, threads, slow_link = frames(
        launches(2, **configured()),
        [
            *launches(2, "B", 100, **configured()),
            *launches(1, "B", 7, minute=99, **configured(1.0)),
        ],
        launches(2, "B", 1),
        [synthetic.launch(n, name="B", conditions={"threads": n + 1}) for n in range(2)],
        [synthetic.launch(n, name="B", conditions={"link_bits_per_s": 1e9 + n}) for n in range(2)],
    )
    with pytest.raises(
        CompareError,
        match=r"candidate .* different work: model\.options\.width 0\.5 in .*B0\.json.*; "
        r"model\.options\.width 1\.0 in .*B2\.json; give files of one configuration",
    ):
        compare(narrow, mixed)
    with pytest.raises(CompareError, match=r"training\.threads 1 in .*training\.threads 2 in"):
        compare(narrow, threads)
    with pytest.raises(CompareError, match=r"link, bit/s 1000000000\.0 in"):
        compare(narrow, slow_link)
    # Two ranks on one host are other work than on two.
    record = two_hosts.record.iloc[0]
    ranks = tuple(rank.model_copy(update={"host": "node0"}) for rank in record.ranks)
    together = two_hosts.iloc[:1].assign(record=[record.model_copy(update={"ranks": ranks})])
    with pytest.raises(
        CompareError, match=r"ranks of each host 2 in .*ranks of each host 1 \+ 1 in"
    ):
        compare(narrow, pd.concat([together, two_hosts.iloc[1:]]))


def test_repeats_may_lie_elsewhere_and_have_other_seeds(
    frames: Callable[..., list[pd.DataFrame]],
) -> None:
    other = [
        record
        for seed in range(6)
        for record in launches(1, "B", 100 + seed, minute=2 * seed + 1, **configured(seed=seed))
    ]
    made = compare(*frames(launches(6, **configured(seed=9)), other))
    assert len(rows(made)["throughput"].candidate) == 6
    assert made.causes == []


def test_what_two_setups_do_differently_is_named(
    frames: Callable[..., list[pd.DataFrame]],
) -> None:
    plain, half = (configured(distributed={"compression": kind}) for kind in ("none", "fp16"))
    made = compare(*frames(launches(6, **plain), launches(6, "B", 100, **half)))
    assert [str(cause) for cause in made.causes] == [
        "configuration: train/segnet/miniature, float32, 2 x 4, 32x48x3, train: the two did "
        "different work: distributed.compression is none in the baseline and fp16 in the candidate"
    ]


def with_options(model: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
    return configured(
        model={"name": "segnet", "options": model}, data={"name": "vaihingen", "options": data}
    )


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(
    ("model", "data", "name", "default", "chosen"),
    [
        ({"width": 0.5}, {}, "model.options.width", "1.0", "0.5"),
        ({}, {"height": "dsm"}, "data.options.height", "none", "dsm"),
    ],
)
def test_an_option_that_was_left_to_its_default_is_told_from_another(
    frames: Callable[..., list[pd.DataFrame]],
    model: dict[str, Any],
    data: dict[str, Any],
    name: str,
    default: str,
    chosen: str,
    known: bool,
) -> None:
    plain, other = with_options({}, {}), with_options(model, data)
    if not known:  # of a version that has other models and data sets
        default = "not given"
        for made, section in itertools.product((plain, other), ("model", "data")):
            made["configuration"][section]["name"] = "of another version"
    before, after, mixed, third = frames(
        launches(6, **plain),
        launches(6, "B", 100, **other),
        [*launches(3, **plain), *launches(3, minute=60, **other)],
        launches(6, "C", **plain),
    )
    (cause,) = compare(before, after).causes
    assert f": {name} is {default} in the baseline and {chosen} in the candidate" in cause.text
    with pytest.raises(
        CompareError, match=f"different work: {name} {default} in .*; {name} {chosen}"
    ):
        compare(mixed, third)


def test_defaults_that_are_written_out_are_no_other_work(
    frames: Callable[..., list[pd.DataFrame]],
) -> None:
    """As they are in the records of this version, and are not in those of earlier ones."""
    short = with_options({}, {})
    whole = with_options(
        {"width": 1.0, "rescale": None, "packed_indices": False},
        {"stride": None, "labels": "full", "areas": None, "height": "none"},
    )
    assert option_defaults.filled_in(short["configuration"]) == whole["configuration"]
    one = launches(6, **short)
    other = [
        record.model_copy(update=made)
        for record, made in zip(launches(6, "B", 50), [short, whole] * 3, strict=True)
    ]
    assert compare(*frames(one, other)).causes == []


def test_other_projects_benchmarks(tmp_path: Path) -> None:
    sides: list[list[Path]] = [[], []]
    for side, number in itertools.product((0, 1), range(6)):
        stats = {"median": noisy(0.02 + 0.002 * side, number), "iqr": 0.001, "rounds": 5}
        content = {
            "datetime": f"2026-11-24T10:{2 * number + side:02}:00",
            "machine_info": {"cpu": {"brand_raw": ("Xeon", "EPYC")[side]}, "node": f"ci-{number}"},
            "benchmarks": [{"fullname": "test_sort.py::test_sort", "stats": stats}],
        }
        sides[side].append(tmp_path / f"{side}{number}.json")
        sides[side][-1].write_text(json.dumps(content))
    made = compare(*map(load, sides))
    (row,) = made.rows
    assert (row.measure, row.verdict) == ("throughput", "slower")
    assert row.ratio == pytest.approx(1 / 1.1, abs=0.01)
    assert row.workload == "test_sort.py::test_sort, pytest-benchmark, calls/s"
    assert [d.what for d in made.differences] == ["cpu.brand_raw"]
