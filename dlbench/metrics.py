"""Quality from sums: a confusion matrix for classes, summed moments for values.

Sums are added over images and ranks (``counts`` and ``sums`` are what an allreduce exchanges);
ratios are derived once, at the end, so that any number of ranks gives the same number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from dlbench.data.dataset import IGNORE

Float = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Score:
    """What epochs are compared by: a column of the history, and which way is up."""

    key: str
    title: str
    """With its unit, for figures."""
    higher: bool
    """Whether the higher is the better."""
    limit: float | None = None
    """The best or worst that can be, where there is one."""

    def best(self, history: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
        """The first epoch with the best score; None before any evaluation."""
        scored = [row for row in history if self.key in row]
        # NaN compares with nothing: such an epoch must not win by coming first.
        ranked = [row for row in scored if np.isfinite(row[self.key])] or scored
        choose = max if self.higher else min
        return choose(ranked, key=lambda row: row[self.key]) if ranked else None

    def evaluations_since_best(self, history: Sequence[dict[str, Any]]) -> int:
        """Evaluations without a better score at the end of ``history``."""
        scored = [row for row in history if self.key in row]
        best = self.best(scored)
        return next((i for i, row in enumerate(reversed(scored)) if row is best), 0)


class ConfusionMatrix:
    """Pixel counts ``[truth, prediction]``, int64, with void pixels left out.

    SegNet's measures (Badrinarayanan et al. 2017, section 4.1) and those of the ISPRS 2D labelling
    contest (F1 per class, overall accuracy = ``global_accuracy``) follow from them.
    """

    def __init__(self, classes: int) -> None:
        if not 1 <= classes <= IGNORE:
            raise ValueError(f"classes is {classes}; allowed are 1 to {IGNORE} ({IGNORE} is void)")
        self._counts = np.zeros((classes, classes), np.int64)

    @property
    def classes(self) -> int:
        return len(self._counts)

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """The matrix ``(truth, prediction)``; assign the sum over all ranks before deriving."""
        return self._counts

    @counts.setter
    def counts(self, value: npt.ArrayLike) -> None:
        counts = np.asarray(value)
        if counts.shape != self._counts.shape or counts.dtype.kind not in "iu":
            raise ValueError(
                f"counts are {counts.dtype} of shape {counts.shape}; "
                f"needed are integers of shape {self._counts.shape}"
            )
        if counts.min() < 0:
            raise ValueError("counts hold a negative number of pixels: the sum overflowed")
        self._counts = counts.astype(np.int64)

    def update(self, truth: npt.ArrayLike, prediction: npt.ArrayLike) -> None:
        """Add class indices of equal shape, any integer type; truth `IGNORE` drops the pixel.

        A prediction of `IGNORE` where the truth is known is an error: leaving such pixels out
        would let a model raise its score by not answering.
        """
        truth, prediction = _labels("truth", truth), _labels("prediction", prediction)
        if truth.shape != prediction.shape:
            raise ValueError(
                f"truth has shape {truth.shape} but prediction {prediction.shape}; they must agree"
            )
        # One pass over the pixels: the range check reads the 256 x 256 table, not the images.
        pairs = (truth.astype(np.uint16) << 8) | prediction
        table = np.bincount(pairs.ravel(), minlength=1 << 16).reshape(256, 256)
        unknown = np.flatnonzero(table[self.classes : IGNORE].any(axis=1)) + self.classes
        if unknown.size:
            raise ValueError(
                f"truth holds the values {unknown.tolist()}; allowed are 0 to {self.classes - 1} "
                f"and {IGNORE} for void (source codes must be mapped to class indices first)"
            )
        wrong = np.flatnonzero(table[: self.classes, self.classes :].any(axis=0)) + self.classes
        if wrong.size:
            raise ValueError(
                f"prediction holds the values {wrong.tolist()} where the truth is known; "
                f"allowed are 0 to {self.classes - 1}"
            )
        self._counts += table[: self.classes, : self.classes]

    def __add__(self, other: ConfusionMatrix) -> ConfusionMatrix:
        total = ConfusionMatrix(self.classes)
        total.counts = self._counts
        total += other
        return total

    def __iadd__(self, other: ConfusionMatrix) -> Self:
        if other.classes != self.classes:
            raise ValueError(f"matrices of {self.classes} and {other.classes} classes do not add")
        self._counts = self._counts + other._counts
        return self

    # Everything below is derived; NaN means undefined (no pixel to divide by).

    @property
    def pixels(self) -> int:
        return int(self._counts.sum())

    @property
    def present(self) -> npt.NDArray[np.bool_]:
        """Which classes the truth holds, ``(classes,)``."""
        return self._counts.sum(axis=1) > 0

    @property
    def global_accuracy(self) -> float:
        """G: right pixels of all valid ones; the ISPRS contest's overall accuracy."""
        return float(_ratio(self._counts.trace(), self._counts.sum()))

    @property
    def class_accuracy(self) -> Float:
        """Right pixels of each class's own, ``(classes,)`` (recall); NaN for an absent class."""
        return _ratio(self._counts.diagonal(), self._counts.sum(axis=1))

    @property
    def iou(self) -> Float:
        """Intersection over union, ``(classes,)``; NaN where neither side names the class."""
        both = self._counts.sum(axis=0) + self._counts.sum(axis=1)
        return _ratio(self._counts.diagonal(), both - self._counts.diagonal())

    @property
    def f1(self) -> Float:
        """F1 = 2 TP / (row + column), ``(classes,)``; NaN where neither side names the class."""
        return _ratio(
            2 * self._counts.diagonal(), self._counts.sum(axis=0) + self._counts.sum(axis=1)
        )

    @property
    def kappa(self) -> float:
        """Cohen's kappa (1960); NaN where chance alone would agree on every pixel."""
        if not self.pixels:
            return float("nan")
        share = self._counts / self.pixels
        chance = float(share.sum(axis=0) @ share.sum(axis=1))
        return float(_ratio(share.trace() - chance, 1.0 - chance))

    def mean_over_all(self, per_class: Float) -> float:
        """SegNet's evaluation script: a class absent from the truth counts 0, divisor unchanged."""
        if not self.pixels:
            return float("nan")
        return float(np.where(self.present, per_class, 0.0).mean())

    def mean_over_present(self, per_class: Float, leave_out: Sequence[int] = ()) -> float:
        """Mean over the classes that the truth holds, less those of ``leave_out``."""
        chosen = self.present
        chosen[list(leave_out)] = False
        return float(per_class[chosen].mean()) if chosen.any() else float("nan")

    def summary(self, class_names: Sequence[str], leave_out: Sequence[str] = ()) -> dict[str, Any]:
        """All measures, ready for JSON (None where undefined); both kinds of mean by name.

        ``leave_out`` names classes (ISPRS: clutter) without which there are ``headline_`` means,
        over those present; none where it is empty: they would be the present classes' own.
        """
        names = self._named(class_names)
        unknown = [name for name in leave_out if name not in names]
        if unknown:
            raise ValueError(f"leave_out names {unknown}; the classes are {names}")
        skipped = [names.index(name) for name in leave_out]
        measures = {"class_accuracy": self.class_accuracy, "iou": self.iou, "f1": self.f1}
        means: dict[str, float] = {}
        for name, values in measures.items():
            means[f"mean_{name}_all_classes"] = self.mean_over_all(values)
            means[f"mean_{name}_present_classes"] = self.mean_over_present(values)
            if skipped:
                means[f"headline_mean_{name}"] = self.mean_over_present(values, skipped)
        scalars = {"global_accuracy": self.global_accuracy, "kappa": self.kappa, **means}
        return {
            "pixels": self.pixels,
            **{name: known(value) for name, value in scalars.items()},
            **({"headline_leaves_out": list(leave_out)} if skipped else {}),
            "classes": {
                name: {
                    "pixels": int(self._counts[i].sum()),
                    **{measure: known(values[i]) for measure, values in measures.items()},
                }
                for i, name in enumerate(names)
            },
        }

    def table(self, class_names: Sequence[str]) -> str:
        """Per-class measures and their means as aligned text; ``-`` where undefined."""
        names = self._named(class_names)
        columns = (self.class_accuracy, self.iou, self.f1)
        over_all = [self.mean_over_all(values) for values in columns]
        over_present = [self.mean_over_present(values) for values in columns]
        shares = _ratio(self._counts.sum(axis=1), self._counts.sum())
        footer = {
            "mean, all classes (absent = 0)": over_all,
            "mean, present classes": over_present,
        }
        width = max(map(len, [*names, *footer]))
        rows = [("class", ["share", "accuracy", "IoU", "F1"])]
        for i, name in enumerate(names):
            rows.append((name, [_cell(v) for v in (shares[i], *(c[i] for c in columns))]))
        rows += [(name, ["", *map(_cell, means)]) for name, means in footer.items()]
        lines = [f"{name:<{width}}" + "".join(f"{c:>10}" for c in row) for name, row in rows]
        lines.append(
            f"global accuracy {_cell(self.global_accuracy)}   kappa {_cell(self.kappa)}   "
            f"{self.pixels} pixels"
        )
        return "\n".join(lines)

    def _named(self, class_names: Sequence[str]) -> list[str]:
        if len(class_names) != self.classes:
            raise ValueError(f"{len(class_names)} class names for {self.classes} classes")
        return list(class_names)


class Moments:
    """Sums n, Σx, Σy, Σx², Σy², Σxy of truth x and prediction y, float64 ``(6, outputs)``.

    RMSE and Pearson's r follow. Values far from zero lose digits: the RMSE is good to about
    1e-8 of their magnitude.
    """

    def __init__(self, outputs: int = 1) -> None:
        if outputs < 1:
            raise ValueError(f"outputs is {outputs}; at least 1 is needed")
        self._sums = np.zeros((6, outputs), np.float64)

    @property
    def sums(self) -> Float:
        """Rows n, Σx, Σy, Σx², Σy², Σxy; assign the sum over all ranks before deriving."""
        return self._sums

    @sums.setter
    def sums(self, value: npt.ArrayLike) -> None:
        sums = np.asarray(value, np.float64)
        if sums.shape != self._sums.shape:
            raise ValueError(f"sums have shape {sums.shape}; needed is {self._sums.shape}")
        self._sums = sums.copy()

    def update(
        self,
        truth: npt.ArrayLike,
        prediction: npt.ArrayLike,
        valid: npt.ArrayLike | None = None,
    ) -> None:
        """Add values ``(..., outputs)``, any real type; ``valid (...)`` bool drops whole pixels."""
        x, y = np.asarray(truth, np.float64), np.asarray(prediction, np.float64)
        outputs = self._sums.shape[1]
        if x.shape != y.shape or x.shape[-1:] != (outputs,):
            raise ValueError(
                f"truth has shape {x.shape} and prediction {y.shape}; "
                f"they must agree and end in {outputs} outputs"
            )
        if valid is not None:
            mask = np.asarray(valid)
            if mask.shape != x.shape[:-1] or mask.dtype != np.bool_:
                raise ValueError(
                    f"valid is {mask.dtype} of shape {mask.shape}; needed is bool {x.shape[:-1]}"
                )
            x, y = x[mask], y[mask]  # selected, not multiplied by 0: 0 * NaN is NaN
        x, y = x.reshape(-1, outputs), y.reshape(-1, outputs)
        count = np.full(outputs, len(x))
        self._sums += [count, *(v.sum(axis=0) for v in (x, y, x * x, y * y, x * y))]

    def __add__(self, other: Moments) -> Moments:
        total = Moments(self._sums.shape[1])
        total.sums = self._sums
        total += other
        return total

    def __iadd__(self, other: Moments) -> Self:
        if other._sums.shape != self._sums.shape:
            raise ValueError(
                f"moments of {self._sums.shape[1]} and {other._sums.shape[1]} outputs do not add"
            )
        self._sums = self._sums + other._sums
        return self

    @property
    def rmse(self) -> Float:
        """Root mean square error per output, in the values' unit; NaN without a value."""
        n, _, _, xx, yy, xy = self._sums
        return np.sqrt(_ratio(np.maximum(xx - 2.0 * xy + yy, 0.0), n))

    @property
    def spread(self) -> Float:
        """Standard deviation of the truth per output: the RMSE of predicting its mean."""
        n, x, _, xx, _, _ = self._sums
        return np.sqrt(np.maximum(_ratio(xx, n) - np.square(_ratio(x, n)), 0.0))

    @property
    def correlation(self) -> Float:
        """Pearson's r per output; NaN where truth or prediction is constant."""
        n, x, y, xx, yy, xy = self._sums
        spread_x, spread_y = n * xx - x * x, n * yy - y * y
        # A constant's spread is rounding noise, not exactly 0.
        noise = 8.0 * np.finfo(np.float64).eps
        varies = (spread_x > noise * n * xx) & (spread_y > noise * n * yy)
        scale = np.sqrt(np.where(varies, spread_x, 0.0)) * np.sqrt(np.where(varies, spread_y, 0.0))
        return np.clip(_ratio(n * xy - x * y, scale), -1.0, 1.0)

    def summary(self, output_names: Sequence[str]) -> dict[str, Any]:
        """RMSE, r and the truth's spread per output, ready for JSON (None where undefined)."""
        if len(output_names) != self._sums.shape[1]:
            raise ValueError(f"{len(output_names)} names for {self._sums.shape[1]} outputs")
        measures = {"rmse": self.rmse, "spread": self.spread, "r": self.correlation}
        return {
            name: {
                "n": int(self._sums[0, i]),
                **{measure: known(values[i]) for measure, values in measures.items()},
            }
            for i, name in enumerate(output_names)
        }


def _labels(what: str, values: npt.ArrayLike) -> npt.NDArray[np.uint8]:
    labels = np.asarray(values)
    if labels.dtype.kind not in "iu":
        raise ValueError(f"{what} is {labels.dtype}; class indices are integers")
    if labels.dtype != np.uint8 and labels.size:
        low, high = labels.min(), labels.max()
        if low < 0 or high > 255:
            raise ValueError(f"{what} holds values from {low} to {high}; allowed are 0 to 255")
    return labels.astype(np.uint8, copy=False)


def _ratio(part: npt.ArrayLike, whole: npt.ArrayLike) -> Float:
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole != 0)


def known(value: float) -> float | None:
    """For JSON, where what is not finite is None."""
    return float(value) if np.isfinite(value) else None


def _cell(value: float) -> str:
    return f"{value:.3f}" if np.isfinite(value) else "-"
