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

  // Print: nothing is folded, and all score rules stand below each other.
  const folded = [];
  addEventListener("beforeprint", () => {
    for (const one of document.querySelectorAll("details:not([open])")) folded.push(one), (one.open = true);
    for (const block of document.querySelectorAll("[data-rule]")) block.hidden = false;
  });
  addEventListener("afterprint", () => {
    for (const one of folded.splice(0)) one.open = false;
    for (const choice of rules) if (choice.checked) showRule(choice.value);
  });

  // One arm in front, the others pale, while its name or its line is pointed at or has the focus.
  const pale = document.createElement("style");
  document.head.append(pale);
  const front = (event) => {
    const arm = event.target.closest?.("figure [data-arm], #arms label, tbody tr[data-arm]");
    const place = arm && (arm.dataset.arm ?? arm.querySelector("input").value);
    pale.textContent = place ? `figure svg .arm:not([data-arm="${place}"]) { opacity: .12; }` : "";
  };
  for (const kind of ["pointerover", "focusin"]) document.addEventListener(kind, front);

  // Smoothing: each curve becomes means of three neighbors; its markers would stand beside it and go.
  const smooth = document.getElementById("smooth");
  const curves = [...document.querySelectorAll("#curves ~ .panels .arm path[style*='fill: none']")];
  const own = curves.map((curve) => curve.getAttribute("d"));
  const smoothed = (path) => {
    const points = [...path.matchAll(/([ML]) *(-?[\d.]+) +(-?[\d.]+)/g)].map((m) => [m[1], +m[2], +m[3]]);
    const mean = (i) => {
      const near = points.slice(Math.max(0, i - 1), i + 2);
      return near.reduce((sum, point) => sum + point[2], 0) / near.length;
    };
    return points.map(([letter, x], i) => `${letter} ${x} ${mean(i).toFixed(2)}`).join(" ");
  };
  smooth?.addEventListener("change", () => {
    body.classList.toggle("smooth", smooth.checked);
    curves.forEach((curve, i) => curve.setAttribute("d", smooth.checked ? smoothed(own[i]) : own[i]));
  });
  if (smooth) smooth.closest("p").hidden = false;

  // The command, to the clipboard.
  const copy = document.getElementById("copy");
  if (navigator.clipboard) copy.hidden = false;
  copy.addEventListener("click", async () => {
    await navigator.clipboard.writeText(document.getElementById("command").textContent);
    copy.textContent = "Copied";
  });

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
  const value = (row, column) => row.cells[column].dataset.sort ?? row.cells[column].textContent.trim();
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
