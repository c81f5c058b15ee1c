"use strict";
(() => {
  const body = document.body;
  const root = document.documentElement;

  // Arms: one class on the body for each hidden arm; the style sheet does the rest.
  for (const box of document.querySelectorAll("#arms input")) {
    box.addEventListener("change", () => body.classList.toggle("hide-" + box.value, !box.checked));
    body.classList.toggle("hide-" + box.value, !box.checked);
  }

  // Score rule: without this script all rules are shown below each other.
  const rules = document.querySelectorAll("#rules input");
  const showRule = (rule) => {
    for (const block of document.querySelectorAll("[data-rule]")) block.hidden = block.dataset.rule !== rule;
  };
  for (const choice of rules) {
    choice.addEventListener("change", () => showRule(choice.value));
    if (choice.checked) showRule(choice.value);
  }
  for (const field of document.querySelectorAll("#rules")) field.hidden = false;

  // Theme: automatic, light, dark.
  const themes = ["auto", "light", "dark"];
  const button = document.getElementById("theme");
  const setTheme = (theme) => {
    if (theme === "auto") delete root.dataset.theme;
    else root.dataset.theme = theme;
    button.textContent = "Theme: " + theme;
  };
  button.hidden = false;
  button.addEventListener("click", () => {
    const now = root.dataset.theme || "auto";
    setTheme(themes[(themes.indexOf(now) + 1) % themes.length]);
  });

  // Sorting: numbers first downwards, text first upwards; cells without a value come last either way.
  const value = (row, column) => row.cells[column].dataset.sort;
  const compare = (a, b, direction) => {
    const missing = (v) => v === "-inf" || v === "";
    if (missing(a) || missing(b)) return missing(a) - missing(b);
    const [x, y] = [Number(a), Number(b)];
    const order = Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b, "en", { numeric: true }) : x - y;
    return direction * order;
  };
  for (const head of document.querySelectorAll("thead th")) {
    head.querySelector("button").addEventListener("click", () => {
      const column = head.cellIndex;
      const rows = head.closest("table").tBodies[0];
      const first = head.classList.contains("number") ? "descending" : "ascending";
      const other = first === "ascending" ? "descending" : "ascending";
      const next = head.getAttribute("aria-sort") === first ? other : first;
      for (const th of head.parentElement.cells) th.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", next);
      const direction = next === "ascending" ? 1 : -1;
      const sorted = [...rows.rows].sort((a, b) => compare(value(a, column), value(b, column), direction));
      rows.append(...sorted);
    });
  }
})();
