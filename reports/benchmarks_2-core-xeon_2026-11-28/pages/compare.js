// The comparison of two setups: verdicts as they were computed ahead, else ratios of medians from
// the numbers in the page. Text goes in as text: nothing that a record says becomes markup.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("comparison").textContent);
  const subjects = data.subjects;
  const [a, b] = ["a", "b"].map((id) => document.getElementById(id));
  const result = document.getElementById("result");
  const told = document.getElementById("told"); // for who does not see the tables change
  const GOOD = ["faster", "less", "better"], BAD = ["slower", "more", "worse"];
  const NAMES = {
    first_step_s: ["time to the first step", "s"],
    energy_per_sample_j: ["energy", "J/sample"],
  };
  const SVG = "http://www.w3.org/2000/svg";

  const make = (name, attributes = {}, ...content) => {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...content);
    return element;
  };

  const draw = (name, attributes, ...content) => {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...content);
    return element;
  };

  const median = (values) => {
    if (!values.length) return null;
    const sorted = [...values].sort((x, y) => x - y), half = sorted.length >> 1;
    return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
  };

  const digits = (value) => {
    if (value === null || value === undefined) return "–";
    const size = Math.abs(value);
    if (size >= 1e7 || (size > 0 && size < 0.001)) return value.toExponential(3);
    const places = size >= 1000 ? 0 : size >= 100 ? 1 : size >= 10 ? 2 : size >= 1 ? 3 : 4;
    return value.toLocaleString("en", { minimumFractionDigits: places, maximumFractionDigits: places });
  };
  const ratio = (value) => (value === null ? "–" : value.toFixed(3));
  const isMemory = (measure) => measure.startsWith("peak_");
  const named = (row) => {
    if (isMemory(row.measure)) return ["peak memory, " + row.measure.slice(5).replaceAll("_", " "), "GiB"];
    if (row.measure in NAMES) return NAMES[row.measure];
    const unit = subjects[b.value].workloads[row.workload]?.unit ?? "samples/s";
    const name = row.measure.replace("quality.", "quality, ").replaceAll("_", " ");
    return [name, row.measure === "throughput" ? unit : ""];
  };
  const shown = (row, value) =>
    value === null ? "–" : digits(isMemory(row.measure) ? value / 2 ** 30 : value);

  // Without a verdict: what the launches in the page say of themselves.
  const bare = (one, other) => {
    const rows = [];
    for (const [workload, before] of Object.entries(one.workloads)) {
      const after = other.workloads[workload];
      if (!after) continue;
      for (const [measure, kind] of [["throughput", "throughput"], ["peak_host_rss", "memory"]]) {
        const [x, y] = [median(before[kind]), median(after[kind])];
        if (x === null || y === null) continue;
        rows.push({
          workload, measure, before: x, after: y, ratio: x ? y / x : null, low: null, high: null,
          p: null, verdict: null, more: "",
          launches: [before[kind].length, after[kind].length],
        });
      }
    }
    const only = [[one, other], [other, one]].map(([from, other_]) =>
      Object.keys(from.workloads).filter((workload) => !(workload in other_.workloads)));
    return { rows, differences: null, causes: [], only, markdown: null };
  };

  const kind = (row) => (GOOD.includes(row.verdict) ? "good" : BAD.includes(row.verdict) ? "bad" : "");

  const interval = (row, low, high) => {
    const at = (value) => `${(100 * (value - low)) / (high - low)}%`;
    const inside = (value) => Math.min(high, Math.max(low, value));
    const width = `${(100 * 2 * data.margin) / (high - low)}%`;
    const svg = draw("svg", { "aria-hidden": "true" },
      draw("rect", { class: "band", x: at(1 - data.margin), width, y: 0, height: "100%" }),
      draw("line", { class: "one", x1: at(1), x2: at(1), y1: 0, y2: "100%" }));
    if (row.low !== null && row.high !== null) {
      svg.append(draw("line", { class: "interval", x1: at(inside(row.low)), x2: at(inside(row.high)), y1: "50%", y2: "50%" }));
    }
    svg.append(draw("circle", { cx: at(inside(row.ratio)), cy: "50%", r: 4 }));
    return svg;
  };

  const qualityOf = (workload, one, other, found) => {
    const [x, y] = [one.workloads[workload], other.workloads[workload]];
    if (!x || !y || x.quality === null || y.quality === null || x.score !== y.score) return "–";
    const judged = found.rows.find((row) => row.workload === workload && row.measure === `quality.${x.score}`);
    return `${x.score.split(".").pop().replaceAll("_", " ")} ${digits(x.quality)} → ${digits(y.quality)}` +
      (judged?.verdict ? `, ${judged.verdict}` : "");
  };

  const table = (caption, heads, rows) => {
    const head = make("tr", {}, ...heads.map(([text, numeric, unit]) => {
      const cell = make("th", { scope: "col", ...(numeric ? { class: "number" } : {}) }, text);
      if (unit) cell.append(" ", make("span", { class: "unit" }, unit));
      return cell;
    }));
    return make("div", { class: "scroll", role: "region", tabindex: 0, "aria-label": caption },
      make("table", { class: "sortable" }, make("caption", {}, caption), make("thead", {}, head),
        make("tbody", {}, ...rows)));
  };

  const comparisons = (compared, one, other, found) => {
    const ends = compared.flatMap((row) => [row.ratio, row.low, row.high]).filter((v) => v !== null);
    const low = Math.max(0.25, Math.min(1 - 2 * data.margin, ...ends) - 0.02);
    const high = Math.min(4, Math.max(1 + 2 * data.margin, ...ends) + 0.02);
    const [measure, unit] = named(compared[0]);
    const speed = compared[0].measure === "throughput";
    const rows = compared.map((row) => {
      const range = make("td", { class: `range ${kind(row)}` });
      if (row.ratio !== null) range.append(interval(row, low, high));
      const bounds = row.low === null ? "–" : `${ratio(row.low)} – ${ratio(row.high)}`;
      const page = other.workloads[row.workload]?.page;
      const name = page ? make("a", { href: page }, row.workload) : row.workload;
      const p = row.p === null ? "–" : row.p < 0.0001 ? "< 0.0001" : row.p.toFixed(4);
      const number = (text) => make("td", { class: "number" }, text);
      return make("tr", {},
        make("th", { scope: "row" }, name),
        make("td", { class: `verdict ${kind(row)}` }, row.verdict ?? "no verdict yet", make("small", {}, row.more)),
        number(ratio(row.ratio)), number(bounds), range,
        number(shown(row, row.before)), number(shown(row, row.after)),
        number(p), number(row.launches.join(" + ")),
        ...(speed ? [make("td", { class: "whole" }, qualityOf(row.workload, one, other, found))] : []));
    });
    return table(`${sentence(measure)}: ${tally(compared)}`, [
      ["Workload"], ["Verdict"], ["B / A", true], ["Interval", true, `${100 * (1 - data.alpha)} %`],
      ["Drawn", false, `${ratio(low)} to ${ratio(high)}`], ["A", true, unit], ["B", true, unit],
      ["p", true, "Holm"], ["Launches", true, "A + B"],
      ...(speed ? [["Quality", false, "A → B"]] : []),
    ], rows);
  };

  const sentence = (text) => text[0].toUpperCase() + text.slice(1);
  const byMeasure = (rows) =>
    [...new Set(rows.map((row) => row.measure))].map((one) => rows.filter((row) => row.measure === one));
  const tally = (rows) => {
    const counts = new Map();
    for (const row of rows) {
      const word = row.verdict ?? "without a verdict";
      counts.set(word, (counts.get(word) ?? 0) + 1);
    }
    return [...counts].map(([word, count]) => `${count} ${word}`).join(", ");
  };

  const show = () => {
    const [one, other] = [subjects[a.value], subjects[b.value]];
    result.replaceChildren();
    told.textContent = "";
    if (one === other) {
      result.append(make("p", {}, "A and B are the same; choose two."));
      return;
    }
    const made = data.pairs[`${a.value}:${b.value}`];
    const found = made ?? bare(one, other);
    const command = make("pre", { tabindex: 0 }, `python -m dlbench.report compare ${one.files} --vs ${other.files}`);
    if (!found.rows.length) {
      result.append(make("p", {}, "These two have no workload in common."));
    } else {
      if (!made) result.append(make("p", {}, `${b.value}:${a.value}` in data.pairs
        ? "Ratios of medians. The verdicts were computed with B as the baseline: swap A and B to see them."
        : "Ratios of medians. The verdicts on this pair were not computed with the report: the command below does it."));
      told.textContent = byMeasure(found.rows).map((rows) => `${named(rows[0])[0]}: ${tally(rows)}`).join("; ");
      result.append(...byMeasure(found.rows).map((rows) => comparisons(rows, one, other, found)));
    }
    if (found.causes.length) {
      result.append(make("h2", {}, "What was found"), make("ul", {}, ...found.causes.map((text) => make("li", {}, text))));
    }
    if (found.differences) {
      result.append(make("h2", {}, "What differs between them"));
      const rows = found.differences.map((texts) =>
        make("tr", {}, make("th", { scope: "row" }, texts[0]), ...texts.slice(1).map((text) => make("td", {}, text))));
      result.append(rows.length
        ? table("Differences, the likeliest to matter first", [["What"], ["A"], ["B"], ["Relevance"], ["Note"]], rows)
        : make("p", {}, "Nothing in their environments."));
    }
    [one, other].forEach((subject, n) => {
      if (!found.only[n].length) return;
      result.append(make("h2", {}, `Only in ${"AB"[n]}, ${subject.label}`),
        make("ul", {}, ...found.only[n].map((text) => make("li", {}, text))));
    });
    result.append(make("h2", {}, "The same from the command line"), command);
    if (found.markdown) {
      const text = make("textarea", { readonly: "", rows: 16, spellcheck: "false", "aria-label": "Markdown" });
      text.value = found.markdown;
      result.append(make("details", {}, make("summary", {}, "Markdown for a pull request"), text));
    }
  };

  const changed = () => {
    const kept = new URLSearchParams({ a: subjects[a.value].key, b: subjects[b.value].key });
    history.replaceState(null, "", `#${kept}`);
    show();
  };
  const restore = () => {
    const kept = new URLSearchParams(location.hash.slice(1));
    const place = (name) => subjects.findIndex((subject) => subject.key === kept.get(name));
    const first = Object.keys(data.pairs)[0]?.split(":").map(Number) ?? [1, 0];
    a.value = place("a") >= 0 ? place("a") : first[0];
    b.value = place("b") >= 0 ? place("b") : first[1];
    show();
  };

  for (const select of [a, b]) {
    subjects.forEach((subject, n) => select.append(make("option", { value: n }, subject.label)));
    select.addEventListener("change", changed);
  }
  document.getElementById("swap").addEventListener("click", () => {
    [a.value, b.value] = [b.value, a.value];
    changed();
  });
  window.addEventListener("hashchange", restore);
  document.getElementById("choose").hidden = false;
  restore();
})();
