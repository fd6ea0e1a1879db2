"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const STEP = 200;
const column = Object.fromEntries(data.columns.map(({ name }, index) => [name, index]));
const scans = data.rows.map((cells, order) => ({
  cells, order, link: data.links[order],
  values: cells.map((cell, index) => (data.columns[index].numeric && cell !== "n/a" && cell !== "" ? Number(cell) : NaN)),
  text: ["participant_id", "session_id", "source", "reason"].map((name) => cells[column[name]]).join(" ").toLowerCase(),
}));
const table = document.getElementById("scans");
const body = table.tBodies[0];
const find = document.getElementById("find");
const kind = document.getElementById("kind");
const unusual = document.getElementById("unusual");
const boxes = [...document.querySelectorAll("input.verdict")];
const more = document.getElementById("more");
let sorting = null;
let matching = [];
let drawn = 0;

const words = new Intl.Collator("en", { numeric: true });
const compare = (index, down) => (a, b) => {
  const numeric = data.columns[index].numeric;
  const lacks = (scan) => (numeric ? Number.isNaN(scan.values[index]) : scan.cells[index] === "n/a");
  // what is missing stays at the end, whichever way the rest is sorted
  if (lacks(a) !== lacks(b)) return lacks(a) ? 1 : -1;
  if (lacks(a)) return a.order - b.order;
  const sign = numeric ? a.values[index] - b.values[index] : words.compare(a.cells[index], b.cells[index]);
  return (down ? -sign : sign) || a.order - b.order;
};
const number = (value) => (Number.isInteger(value) ? value.toLocaleString("en") : String(Number(value.toPrecision(4))));

const cellOf = (scan, index) => {
  const { name, numeric } = data.columns[index];
  const cell = document.createElement("td");
  const content = scan.cells[index];
  if (name === "verdict") {
    const badge = document.createElement("span");
    badge.className = `badge ${/^[A-Z]+$/.test(content) ? content : ""}`;
    badge.textContent = content;
    cell.append(badge);
  } else if (name === "participant_id" && scan.link) {
    const link = document.createElement("a");
    link.href = scan.link;
    link.textContent = content;
    cell.append(link);
  } else if (numeric && !Number.isNaN(scan.values[index])) {
    cell.textContent = number(scan.values[index]);
    cell.title = content;
  } else {
    cell.textContent = content === "n/a" ? "–" : content;
  }
  if (numeric) cell.classList.add("number");
  if (name === "reason") cell.classList.add("reason");
  if (name === "outlier_score" && scan.values[index] > data.outlier) cell.classList.add("unusual");
  return cell;
};
const draw = (upTo) => {
  const lines = document.createDocumentFragment();
  for (const scan of matching.slice(drawn, upTo)) {
    const line = document.createElement("tr");
    line.append(...data.columns.map((_, index) => cellOf(scan, index)));
    lines.append(line);
  }
  body.append(lines);
  drawn = Math.min(upTo, matching.length);
  more.hidden = drawn >= matching.length;
  more.textContent = `Show ${Math.min(STEP, matching.length - drawn)} more of ${matching.length - drawn}`;
};
const update = () => {
  const wanted = new Set(boxes.filter((box) => box.checked).map((box) => box.value));
  const known = new Set(boxes.map((box) => box.value));
  const needle = find.value.trim().toLowerCase();
  matching = scans.filter((scan) => {
    const verdict = scan.cells[column.verdict];
    return (wanted.has(verdict) || !known.has(verdict)) && scan.text.includes(needle)
      && (!kind.value || scan.cells[column.suffix] === kind.value)
      && (!unusual.checked || scan.values[column.outlier_score] > data.outlier);
  });
  if (sorting) matching.sort(compare(sorting.index, sorting.down));
  [...table.tHead.rows[0].cells].forEach((head, index) => {
    if (sorting && sorting.index === index) head.setAttribute("aria-sort", sorting.down ? "descending" : "ascending");
    else head.removeAttribute("aria-sort");
  });
  document.getElementById("shown").textContent =
    `${matching.length.toLocaleString("en")} of ${scans.length.toLocaleString("en")} scans`;
  body.replaceChildren();
  drawn = 0;
  draw(STEP);
};

data.columns.forEach(({ name, numeric, about }, index) => {
  const head = document.createElement("th");
  head.scope = "col";
  if (numeric) head.className = "number";
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = name;
  button.title = about;
  // numbers from large to small first: it is the extremes that one looks for
  button.addEventListener("click", () => {
    const down = sorting && sorting.index === index ? !sorting.down : numeric;
    sorting = { index, down };
    update();
  });
  head.append(button);
  table.tHead.rows[0].append(head);
});
for (const control of [kind, unusual, ...boxes]) control.addEventListener("change", update);
find.addEventListener("input", update);
more.addEventListener("click", () => draw(drawn + STEP));
document.getElementById("reset").addEventListener("click", () => {
  find.value = kind.value = "";
  unusual.checked = false;
  for (const box of boxes) box.checked = true;
  sorting = null;
  update();
});
update();
