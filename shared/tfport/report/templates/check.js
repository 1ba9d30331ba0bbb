"use strict";
// Sorts and filters the tables of class "data". Without it the page is whole: it makes its own buttons and boxes.
(() => {
  const LONG = 10; // rows from which a table gets a search box
  const collator = new Intl.Collator("en", { numeric: true });
  const infinite = { inf: Infinity, "-inf": -Infinity };

  // What a cell sorts by: a number in a column of numbers (NaN where it holds none), else its text.
  function key(row, column, numeric) {
    const text = row.cells[column].textContent.trim();
    if (!numeric) return text;
    const plain = text.replaceAll(",", "");
    return plain in infinite ? infinite[plain] : plain === "" ? NaN : Number(plain);
  }

  // What holds no number, or nothing, stands last in both directions.
  function order(one, other, sign) {
    const missing = (each) => each === "" || Number.isNaN(each);
    if (missing(one) || missing(other)) return missing(one) - missing(other);
    if (typeof one === "string") return sign * collator.compare(one, other);
    return sign * (one < other ? -1 : one > other ? 1 : 0);
  }

  function sortable(table, rows) {
    const headers = [...table.tHead.rows[0].cells];
    const next = { none: "ascending", ascending: "descending", descending: "none" };
    headers.forEach((header, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.title = "Sort: ascending, descending, as it was";
      button.append(...header.childNodes);
      header.append(button);
      button.addEventListener("click", () => {
        const now = next[header.getAttribute("aria-sort") ?? "none"];
        headers.forEach((each) => each.removeAttribute("aria-sort"));
        const sorted = [...rows];
        if (now !== "none") {
          header.setAttribute("aria-sort", now);
          const numeric = header.classList.contains("number");
          const keys = new Map(rows.map((row) => [row, key(row, column, numeric)]));
          const sign = now === "ascending" ? 1 : -1;
          sorted.sort((one, other) => order(keys.get(one), keys.get(other), sign));
        }
        table.tBodies[0].append(...sorted);
      });
    });
  }

  function filterable(table, rows) {
    const texts = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
    const bar = document.createElement("div");
    const label = document.createElement("label");
    const input = document.createElement("input");
    const count = document.createElement("output");
    bar.className = "filter";
    input.type = "search";
    input.autocomplete = "off";
    input.spellcheck = false;
    label.append("Filter", input);
    count.setAttribute("aria-live", "polite");
    bar.append(label, count);
    const whole = rows.length.toLocaleString("en");
    const show = () => {
      const wanted = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const row of rows) {
        row.hidden = !wanted.every((each) => texts.get(row).includes(each));
        shown += !row.hidden;
      }
      count.textContent = wanted.length ? `${shown.toLocaleString("en")} of ${whole} rows` : `${whole} rows`;
    };
    input.addEventListener("input", show);
    table.closest(".scroll").before(bar);
    show();
  }

  for (const table of document.querySelectorAll("table.data")) {
    const rows = [...table.tBodies[0].rows];
    if (rows.length > 1) sortable(table, rows);
    if (rows.length > LONG) filterable(table, rows);
  }
})();
