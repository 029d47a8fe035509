"use strict";
// Makes the headings of tables of class "sortable" buttons: ascending, then descending; what says nothing stays last.
for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const down = heading.getAttribute("aria-sort") === "ascending";
      for (const other of headings) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      sort(table.tBodies[0], column, heading.classList.contains("number"), down ? -1 : 1);
    });
  });
}

function sort(body, column, isNumber, sign) {
  const texts = new Intl.Collator(undefined, { numeric: true });
  const keyed = [...body.rows].map((row) => {
    const { k } = row.cells[column].dataset;
    return { row, key: k === undefined || !isNumber ? k : Number(k) };
  });
  keyed.sort((a, b) => {
    if (a.key === undefined || b.key === undefined) return (a.key === undefined) - (b.key === undefined);
    return sign * (isNumber ? a.key - b.key : texts.compare(a.key, b.key));
  });
  body.append(...keyed.map(({ row }) => row));
}
