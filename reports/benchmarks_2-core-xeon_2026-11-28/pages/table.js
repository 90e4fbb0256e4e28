// Tables: sorted by their headings' buttons; one with the class "filtered" is narrowed down as well
// and keeps words, choices and order in the address, so that a view can be sent to someone.
"use strict";
(() => {
  const SHOWN = 200; // rows at first: more are drawn when asked for
  const MOST_CHOICES = 80;
  const words = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

  const value = (row, column) => {
    const cell = row.cells[column];
    const given = cell.dataset.v ?? cell.textContent.trim();
    return given === "–" ? "" : given;
  };

  const order = (a, b, sign) => {
    if (a === "" || b === "") return (a === "") - (b === ""); // unknown comes last, both ways
    const [x, y] = [Number(a), Number(b)];
    return sign * (Number.isNaN(x) || Number.isNaN(y) ? words.compare(a, b) : x - y);
  };

  const sort = (table, column, direction) => {
    const body = table.tBodies[0];
    const sign = direction === "descending" ? -1 : 1;
    const rows = Array.from(body.rows, (row, n) => [value(row, column), n, row]);
    rows.sort((a, b) => order(a[0], b[0], sign) || a[1] - b[1]);
    body.append(...rows.map((row) => row[2]));
    const heads = table.tHead.rows[0].cells;
    for (const head of heads) head.setAttribute("aria-sort", "none");
    heads[column].setAttribute("aria-sort", direction);
  };

  const make = (name, attributes, ...content) => {
    const element = Object.assign(document.createElement(name), attributes);
    element.append(...content);
    return element;
  };

  const prepare = (table) => {
    const heads = Array.from(table.tHead.rows[0].cells);
    const rows = Array.from(table.tBodies[0].rows);
    const filtered = table.classList.contains("filtered");
    const state = new URLSearchParams(filtered ? location.hash.slice(1) : "");
    const named = (key) => heads.findIndex((head) => head.dataset.key === key);
    const choices = new Map();
    let all = false;

    const count = make("p", { className: "count", role: "status" });
    const more = make("button", { type: "button", className: "more" });
    const text = make("input", { type: "search", value: state.get("q") ?? "" });

    const narrow = () => {
      const sought = text.value.toLowerCase().split(/\s+/).filter(Boolean);
      const chosen = [...choices].filter(([, select]) => select.value !== "");
      const fits = (row) =>
        chosen.every(([n, select]) => row.cells[n].textContent === select.value) &&
        sought.every((word) => row.textContent.toLowerCase().includes(word));
      let found = 0;
      for (const row of table.tBodies[0].rows) {
        const fit = fits(row);
        found += fit;
        row.hidden = !fit || (!all && found > SHOWN);
      }
      const drawn = all ? found : Math.min(found, SHOWN);
      count.textContent = `${found.toLocaleString("en")} of ${rows.length.toLocaleString("en")} rows` +
        (drawn < found ? `, the first ${drawn} are shown` : "");
      more.hidden = drawn === found;
      more.textContent = `Show all ${found.toLocaleString("en")}`;
    };

    const remember = () => {
      if (!filtered) return;
      const at = heads.findIndex((head) => head.getAttribute("aria-sort") !== "none");
      const kept = new URLSearchParams();
      if (text.value) kept.set("q", text.value);
      for (const [n, select] of choices) if (select.value) kept.set(heads[n].dataset.key, select.value);
      if (at >= 0) kept.set("sort", `${heads[at].dataset.key}:${heads[at].getAttribute("aria-sort")}`);
      history.replaceState(null, "", `#${kept}`);
    };
    const changed = () => { narrow(); remember(); };

    heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
      const largest = head.classList.contains("number") ? "descending" : "ascending";
      const other = largest === "descending" ? "ascending" : "descending";
      sort(table, column, head.getAttribute("aria-sort") === largest ? other : largest);
      changed();
    }));
    more.addEventListener("click", () => { all = true; narrow(); });

    if (filtered) {
      const controls = make("div", { className: "controls" });
      controls.append(make("label", {}, "Rows with the words ", text));
      text.addEventListener("input", changed);
      heads.forEach((head, n) => {
        const values = new Set(rows.map((row) => row.cells[n].textContent));
        if (!("choice" in head.dataset) || values.size < 2 || values.size > MOST_CHOICES) return;
        const select = make("select", {}, make("option", { value: "" }, "all"));
        for (const one of [...values].sort(words.compare)) select.append(make("option", {}, one));
        select.value = state.get(head.dataset.key) ?? "";
        if (select.selectedIndex < 0) select.value = "";
        select.addEventListener("change", changed);
        choices.set(n, select);
        controls.append(make("label", {}, `${head.textContent} `, select));
      });
      controls.append(count);
      table.parentElement.before(controls);
      const [key, direction] = (state.get("sort") ?? "").split(":");
      const column = key ? named(key) : -1;
      if (column >= 0) sort(table, column, direction === "descending" ? direction : "ascending");
    }
    if (rows.length > SHOWN || filtered) narrow();
    if (rows.length > SHOWN) table.parentElement.after(more);
  };

  for (const table of document.querySelectorAll("table.sortable")) prepare(table);
})();
