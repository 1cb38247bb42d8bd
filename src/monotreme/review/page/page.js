// What holds the page together: the state, the keys, and the talk with the server.
import { FILTERS, List, STATES, isShown } from "./list.js";
import { drawHistory, drawNothing, drawPair, element, words } from "./pair.js";

const POLL_MS = 2000; // how soon another reviewer's verdict is seen
const byId = (id) => document.getElementById(id);

let about, pairs = [];
let found = null; // numbers that the search found, null without one
let seen = 0; // lines of the verdicts file that are known here
let current = -1;
const history = new Map(); // number → [[verdict, reviewer, at], …]
const undone = []; // what `u` takes back: lists of [number, verdict before]
const details = new Map(); // number → promise of what the server told

// ── the server ──────────────────────────────────────────────────────────────────────────────

async function ask(path, body) {
  const options = body === undefined ? {} : { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Error("The server does not answer. Start `monotreme review` again; what was confirmed is kept.");
  }
  if (answer.ok) return answer.json();
  const text = await answer.text();
  let message = text;
  try { message = JSON.parse(text).error; } catch { /* plain text */ }
  throw new Error(message);
}

function notice(text, bad = false) {
  const box = byId("notice");
  box.textContent = text;
  box.className = bad ? "on bad" : "on";
  clearTimeout(notice.timer);
  notice.timer = setTimeout(() => (box.className = ""), bad ? 8000 : 2500);
}

const guarded = (action) => async (...given) => {
  try { return await action(...given); } catch (error) { notice(error.message, true); }
};

function detail(number) {
  if (!details.has(number)) {
    details.set(number, ask(`/api/pairs/${number}`));
    details.get(number).catch(() => details.delete(number));
    if (details.size > 200) details.delete(details.keys().next().value);
  }
  return details.get(number);
}

// ── what was said ───────────────────────────────────────────────────────────────────────────

// reviewer → the verdict that stands
function said(number) {
  const standing = new Map();
  for (const [verdict, reviewer] of history.get(number) ?? []) {
    standing.delete(reviewer);
    if (verdict) standing.set(reviewer, verdict);
  }
  return standing;
}

const mine = (number) => said(number).get(about.reviewer) ?? null;

function held(number) {
  const standing = new Set(said(number).values());
  return about.verdicts.find((verdict) => standing.has(verdict)) ?? pairs[number].proposed;
}

let reading = Promise.resolve();

// One reading after another, so that no line is taken twice.
function readNews() {
  reading = reading.catch(() => {}).then(async () => {
    const news = await ask(`/api/verdicts?after=${seen}`);
    if (news.start < seen) history.clear();
    if (!news.verdicts.length && news.next === seen) return;
    seen = news.next;
    for (const [number, ...line] of news.verdicts) {
      history.set(number, [...(history.get(number) ?? []), line]);
    }
    if (news.agreement) drawAgreement(news.agreement);
    drawState();
  });
  return reading;
}

function drawAgreement(agreement) {
  byId("agreement").textContent = agreement
    .map(({ reviewers, pairs: both, kappa }) => `κ ${kappa === null ? "–" : kappa.toFixed(2)} (${reviewers.join(", ")}: ${both})`)
    .join("  ");
}

const judge = guarded(async (given) => {
  if (!given.length) return;
  undone.push(given.map(([number]) => [number, mine(number)]));
  await ask("/api/verdicts", given).catch((error) => { undone.pop(); throw error; });
  await readNews();
});

async function judgeOne(verdict) {
  if (current < 0) return;
  const number = current;
  const order = list.shown; // as it was before the verdict may have moved the pair out of it
  await judge([[number, verdict]]);
  if (mine(number) === verdict && current === number) step(1, true, order);
}

const undo = guarded(async () => {
  const before = undone.pop();
  if (!before) return notice("Nothing to undo in this window");
  await ask("/api/verdicts", before).catch((error) => { undone.push(before); throw error; });
  await readNews();
  go(before[0][0]);
  notice(before.length > 1 ? `Took back ${before.length} verdicts` : "Took back the verdict");
});

// ── what is shown ───────────────────────────────────────────────────────────────────────────

const list = new List(
  (number) => ({ pair: pairs[number], held: held(number), judged: mine(number) !== null }),
  (number) => go(number),
);

const filters = () => Object.fromEntries(FILTERS.map((name) => [name, byId(name).value]));

function drawState() {
  const chosen = filters();
  const numbers = pairs.map((pair) => pair.number)
    .filter((number) => isShown(pairs[number], chosen, found, said(number), held(number), about.reviewer));
  list.show(numbers, current);
  const judged = pairs.filter((pair) => mine(pair.number) !== null).length;
  const any = pairs.filter((pair) => said(pair.number).size).length;
  byId("shown").textContent = `${numbers.length.toLocaleString()} of ${pairs.length.toLocaleString()} pairs`;
  byId("bulk-button").disabled = !numbers.length;
  byId("bar").value = judged;
  byId("progress").textContent = `${judged.toLocaleString()} of ${pairs.length.toLocaleString()}` + (any > judged ? `, ${any.toLocaleString()} by anybody` : "");
  for (const button of byId("verdicts").children) {
    button.setAttribute("aria-pressed", String(current >= 0 && mine(current) === button.value));
  }
  drawHistory(history.get(current) ?? []);
}

const go = guarded(async (number) => {
  current = number;
  remember();
  list.follow(number);
  drawState();
  const told = await detail(number);
  if (current !== number) return; // the reviewer was faster
  drawPair(told, history.get(number) ?? []);
  const next = list.shown[list.shown.indexOf(number) + 1];
  if (next !== undefined) detail(next).catch(() => {});
});

// The next pair in a direction; `open` passes over those that are judged.
function step(direction, open, order = list.shown) {
  let place = order.indexOf(current);
  if (place < 0 && direction < 0) place = order.length;
  for (place += direction; place >= 0 && place < order.length; place += direction) {
    if (!open || mine(order[place]) === null) return go(order[place]);
  }
  notice(open ? "No pair that you have not judged is left that way" : "That was the last one");
}

// Filters and place live in the address, so that a reload or a second window keeps them.
function remember() {
  const state = new URLSearchParams(Object.entries(filters()).filter(([, value]) => value));
  if (current >= 0) state.set("pair", current);
  window.history.replaceState(null, "", `#${state}`);
}

function recall() {
  const state = new URLSearchParams(location.hash.slice(1));
  for (const name of FILTERS) byId(name).value = state.get(name) ?? "";
  const number = Number(state.get("pair") ?? -1);
  return Number.isInteger(number) && number >= 0 && number < pairs.length ? number : -1;
}

let asked = 0;
const refilter = guarded(async () => {
  const turn = ++asked;
  const text = byId("search").value.trim();
  const numbers = text ? new Set(await ask(`/api/search?text=${encodeURIComponent(text)}`)) : null;
  if (turn !== asked) return; // a later search is under way
  found = numbers;
  byId("list").scrollTop = 0;
  drawState();
  remember();
  if (!list.shown.includes(current) && list.shown.length) go(list.shown[0]);
  if (!list.shown.length) { current = -1; drawNothing("No pair is like that. Loosen the filters."); drawState(); }
});

// ── keys and buttons ────────────────────────────────────────────────────────────────────────

function onKey(event) {
  const typing = event.target.matches("input, select");
  if (event.key === "Escape" && typing) { event.target.blur(); byId("list").focus(); return; }
  if (event.key === "Enter" && event.target.id === "search") { event.target.blur(); return; }
  if (typing || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  const actions = {
    u: undo, n: () => step(1, true), p: () => step(-1, true), j: () => step(1), k: () => step(-1),
    ArrowDown: () => step(1), ArrowUp: () => step(-1), "/": () => byId("search").focus(), "?": () => byId("help").showModal(),
  };
  const verdict = about.verdicts[Number(event.key) - 1];
  const action = verdict ? () => judgeOne(verdict) : actions[event.key];
  if (!action) return;
  event.preventDefault();
  if (!(event.repeat && verdict)) action(); // a key held down judges one pair, not all
}

function verdictButton(verdict, number, onClick) {
  const button = element("button", verdict, element("kbd", "", String(number)), ` ${words(verdict)}`);
  button.value = verdict;
  button.addEventListener("click", onClick);
  return button;
}

function openBulk() {
  const numbers = [...list.shown];
  byId("bulk-number").textContent = numbers.length.toLocaleString();
  byId("bulk-verdicts").replaceChildren(...about.verdicts.map((verdict) => {
    const button = element("button", verdict, `Yes, all ${numbers.length.toLocaleString()} are: ${words(verdict)}`);
    button.value = verdict;
    button.addEventListener("click", async () => {
      byId("bulk").close();
      await judge(numbers.map((number) => [number, verdict]));
      if (numbers.every((number) => mine(number) === verdict)) notice(`Judged ${numbers.length.toLocaleString()} pairs`);
    });
    return button;
  }));
  byId("bulk").showModal();
}

function fillSelect(id, values) {
  byId(id).append(...values.map(([value, text]) => { const option = element("option", "", text); option.value = value; return option; }));
}

const start = guarded(async () => {
  about = await ask("/api/pairs");
  pairs = about.pairs.map((row, number) => ({ number, title: row.at(-1), ...Object.fromEntries(about.columns.map((name, place) => [name, row[place]])) }));
  byId("run").textContent = about.run;
  byId("reviewer").textContent = about.reviewer;
  byId("bar").max = pairs.length;
  for (const name of ["source", "benchmark"]) {
    fillSelect(name, [...new Set(pairs.map((pair) => pair[name]))].sort().map((value) => [value, value]));
  }
  fillSelect("state", STATES);
  byId("verdicts").append(...about.verdicts.map((verdict, place) => verdictButton(verdict, place + 1, () => judgeOne(verdict))));
  const place = recall();
  await readNews();
  await refilter();
  if (place >= 0) await go(place);
  else if (current >= 0 && mine(current) !== null) step(1, true);
  document.addEventListener("keydown", onKey);
  byId("search").addEventListener("input", refilter);
  for (const name of FILTERS.slice(1)) byId(name).addEventListener("change", refilter);
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("help-button").addEventListener("click", () => byId("help").showModal());
  byId("bulk-button").addEventListener("click", openBulk);
  for (const button of document.querySelectorAll("dialog .close")) button.addEventListener("click", () => button.closest("dialog").close());
  setInterval(() => { if (!document.hidden) readNews().catch((error) => notice(error.message, true)); }, POLL_MS);
  document.body.dataset.ready = "yes";
});

start();
