// A click on a head sorts the rows by its column: numbers by size, then words; cells without a value stay last.
const value = text => {
  const found = text.replaceAll("\u2212", "-").replace(/[\u2007\u2008,]/g, "").match(/^[+-]?\d+(\.\d+)?/);
  return found ? Number(found[0]) : NaN;
};
const heads = [...document.querySelectorAll("th")], body = document.querySelector("tbody");
const sort = column => {
  const turn = heads[column].ariaSort === "ascending" ? -1 : 1;
  const keyed = [...body.rows].map(row => [row.cells[column].textContent.trim(), row]);
  const compare = ([one], [two]) => {
    const missing = (one === "\u2013") - (two === "\u2013"), words = isNaN(value(one)) - isNaN(value(two));
    return missing || words || turn * (isNaN(value(one)) ? one.localeCompare(two) : value(one) - value(two));
  };
  body.append(...keyed.sort(compare).map(([, row]) => row));
  heads.forEach(head => { head.ariaSort = null; });
  heads[column].ariaSort = turn > 0 ? "ascending" : "descending";
};
heads.forEach((head, column) => {
  head.tabIndex = 0;
  head.title = "sort by this column";
  head.onclick = () => sort(column);
  head.onkeydown = event => { if (event.key === "Enter") sort(column); };
});
