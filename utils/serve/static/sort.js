// A click on a heading sorts its table by that column; what is missing comes last.

for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const heading = button.closest("th");
    const body = heading.closest("table").tBodies[0];
    const descending = heading.getAttribute("aria-sort") !== "descending";
    for (const other of heading.parentNode.children) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
    const value = (row) => row.cells[heading.cellIndex].dataset.value;
    const compare = (a, b) => (Number.isNaN(Number(a)) || Number.isNaN(Number(b)) ? a.localeCompare(b) : a - b);
    const filled = [...body.rows].filter((row) => value(row) !== "");
    const empty = [...body.rows].filter((row) => value(row) === "");
    filled.sort((a, b) => (descending ? -1 : 1) * compare(value(a), value(b)));
    body.append(...filled, ...empty);
  });
}
