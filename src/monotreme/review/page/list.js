// The list of pairs: which are shown, and only as many rows in the page as the eye sees.
import { element, words } from "./pair.js";

const ROW = 54; // pixels, as in page.css
const byId = (id) => document.getElementById(id);
export const FILTERS = ["search", "source", "benchmark", "state", "low", "high"];

export const STATES = [
  ["", "all pairs"],
  ["open", "not judged by you"],
  ["mine", "judged by you"],
  ["nobody", "not judged by anybody"],
  ["differ", "reviewers disagree"],
  ["changed", "judged otherwise than proposed"],
  ["duplicate", "duplicate"],
  ["gray_area", "gray area"],
  ["similar_but_different", "similar but different"],
];

// Whether a pair is shown. said: reviewer → verdict on it; held: the verdict that holds for it.
export function isShown(pair, filters, found, said, held, reviewer) {
  if (filters.source && pair.source !== filters.source) return false;
  if (filters.benchmark && pair.benchmark !== filters.benchmark) return false;
  if (filters.low !== "" && pair.similarity < Number(filters.low)) return false;
  if (filters.high !== "" && pair.similarity > Number(filters.high)) return false;
  if (found && !found.has(pair.number)) return false;
  const verdicts = new Set(said.values());
  switch (filters.state) {
    case "": return true;
    case "open": return !said.has(reviewer);
    case "mine": return said.has(reviewer);
    case "nobody": return said.size === 0;
    case "differ": return verdicts.size > 1;
    case "changed": return said.size > 0 && held !== pair.proposed;
    default: return held === filters.state;
  }
}

export class List {
  constructor(describe, choose) {
    this.describe = describe; // pair number → {pair, held, judged}
    this.choose = choose;
    this.shown = [];
    this.current = -1;
    this.box = byId("list");
    this.rows = byId("rows");
    this.box.addEventListener("scroll", () => this.draw());
    new ResizeObserver(() => this.draw()).observe(this.box);
  }

  show(numbers, current) {
    this.shown = numbers;
    this.current = current;
    this.rows.style.height = `${numbers.length * ROW}px`;
    this.draw();
  }

  // Make the current row visible.
  follow(current) {
    this.current = current;
    const place = this.shown.indexOf(current);
    if (place >= 0) {
      const top = place * ROW;
      if (top < this.box.scrollTop) this.box.scrollTop = top;
      const least = top + ROW - this.box.clientHeight;
      if (least > this.box.scrollTop) this.box.scrollTop = least;
    }
    this.draw();
  }

  draw() {
    const first = Math.max(0, Math.floor(this.box.scrollTop / ROW) - 4);
    const last = Math.min(this.shown.length, first + Math.ceil(this.box.clientHeight / ROW) + 8);
    this.rows.replaceChildren(
      ...this.shown.slice(first, last).map((number, place) => this.row(number, first + place)),
    );
  }

  row(number, place) {
    const { pair, held, judged } = this.describe(number);
    const row = element("div", "row",
      element("div", "", pair.title),
      element("div", "",
        element("span", held, `${judged ? "✓ " : ""}${words(held)}`),
        element("small", "", ` · ${pair.similarity.toFixed(3)} · ${pair.source} → ${pair.benchmark}`),
      ),
    );
    row.style.top = `${place * ROW}px`;
    row.setAttribute("role", "option");
    row.setAttribute("aria-selected", String(number === this.current));
    row.dataset.number = number;
    if (number === this.current) row.classList.add("current");
    row.addEventListener("click", () => this.choose(number));
    return row;
  }
}
