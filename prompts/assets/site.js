// Search and sorting for the lists. Reads and moves what the page already holds; fetches nothing.
"use strict";

(function () {
  const table = document.getElementById("prompts");
  const items = () => document.querySelectorAll("#prompts tbody tr, ul.all li");

  function search(text) {
    const words = text.normalize("NFC").toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const item of items()) {
      const content = item.textContent.normalize("NFC").toLowerCase();
      item.hidden = !words.every((word) => content.includes(word));
      shown += item.hidden ? 0 : 1;
    }
    for (const list of document.querySelectorAll("ul.all")) {
      list.previousElementSibling.hidden = !list.querySelector("li:not([hidden])");
    }
    document.getElementById("found").textContent = words.length ? shown + " found" : "";
  }

  function value(row, column, isNumber) {
    const text = row.cells[column].textContent.trim();
    return isNumber ? (text === "" ? null : parseFloat(text)) : text;
  }

  // Cells without a value stay at the end, whichever way the others are sorted.
  function compare(one, other, sign) {
    if (one === null || other === null) {
      return (one === null ? 1 : 0) - (other === null ? 1 : 0);
    }
    return sign * (typeof one === "number" ? one - other : one.localeCompare(other));
  }

  function sort(head) {
    const isNumber = head.classList.contains("n");
    const first = isNumber || head.cellIndex === 0 ? "descending" : "ascending";
    const turned = { ascending: "descending", descending: "ascending" };
    const way = turned[head.getAttribute("aria-sort")] || first;
    for (const other of head.parentNode.cells) {
      other.removeAttribute("aria-sort");
    }
    head.setAttribute("aria-sort", way);
    const sign = way === "ascending" ? 1 : -1;
    const body = table.tBodies[0];
    const rows = Array.from(body.rows, (row) => [value(row, head.cellIndex, isNumber), row]);
    rows.sort((one, other) => compare(one[0], other[0], sign));
    body.append(...rows.map((pair) => pair[1]));
  }

  const field = document.getElementById("search");
  if (field) {
    field.closest(".tools").hidden = false;
    field.addEventListener("input", () => search(field.value));
    if (field.value) {
      search(field.value);
    }
  }
  if (table) {
    for (const head of table.tHead.rows[0].cells) {
      const button = document.createElement("button");
      button.textContent = head.textContent;
      button.addEventListener("click", () => sort(head));
      head.replaceChildren(button);
    }
    table.tHead.rows[0].cells[0].setAttribute("aria-sort", "descending");
  }
})();
