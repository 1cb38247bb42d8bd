// One pair, side by side. Every text enters the page as text, never as markup.

export function element(name, className, ...children) {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

export const words = (name) => name.replaceAll("_", " ");

const pieces = (marked) => marked.map(([text, marks]) => (marks ? element("span", marks, text) : text));

function block(title, content, className = "text") {
  return [element("h3", "", title), element("div", className, ...content)];
}

function trainingSide(question) {
  const about = [question.source, question.subject, question.license, question.llm_written ? "written by a language model" : ""];
  const side = element("article", "side",
    element("header", "", element("h2", "", "Training question"), element("span", "", about.filter(Boolean).join(" · "))),
    element("div", "text", ...pieces(question.instruction)),
  );
  if (question.input.length) side.append(...block("Input", pieces(question.input)));
  side.append(...block("Answer", [question.output || "none"], "text answer"));
  return side;
}

function benchmarkSide(benchmark) {
  const side = element("article", "side",
    element("header", "", element("h2", "", "Benchmark question"), element("span", "", benchmark.name)),
  );
  if (benchmark.passage.length) side.append(...block("Passage", pieces(benchmark.passage)));
  side.append(element("div", "text", ...pieces(benchmark.stem)));
  if (benchmark.options.length) {
    const options = benchmark.options.map(([text, right]) => element("li", right ? "right" : "", ...pieces(text)));
    side.append(element("h3", "", "Options, the right ones marked"), element("ol", "options", ...options));
  } else {
    side.append(...block("Answer", [benchmark.answers.join("\n") || "none"], "text answer"));
  }
  return side;
}

function fact(name, value, className = "") {
  return element("span", "", `${name} `, element("b", className, value));
}

function facts(pair) {
  const found = [
    fact("proposed", words(pair.proposed), pair.proposed),
    fact("because", words(pair.reason)),
    fact("confidence", pair.confidence.toFixed(2)),
    fact("similarity", pair.similarity.toFixed(3)),
    fact("compared", `${pair.question_view} with ${pair.view}`),
  ];
  if (pair.verbatim) found.push(fact("word for word", `${Math.round(100 * pair.verbatim)} %`));
  if (pair.affected > 1) found.push(fact("questions like this benchmark question", pair.affected));
  return element("div", "facts", ...found);
}

// history: [[verdict, reviewer, at], …] as they were given.
export function drawHistory(history) {
  const lines = history.map(([verdict, reviewer, at]) =>
    element("div", "",
      verdict ? element("span", verdict, words(verdict)) : "taken back",
      ` · ${reviewer} · ${new Date(at).toLocaleString()}`,
    ));
  document.querySelector(".given")?.replaceChildren(...lines);
}

export function drawPair(pair, history) {
  const place = document.getElementById("pair");
  place.replaceChildren(
    facts(pair),
    element("div", "sides", trainingSide(pair.question), benchmarkSide(pair.benchmark)),
    element("div", "given"),
  );
  drawHistory(history);
  place.scrollTop = 0;
}

export function drawNothing(text) {
  document.getElementById("pair").replaceChildren(element("p", "empty", text));
}
