// The graph of a run: draws its lines, counts states, and keeps the states up to date (live.js asks for them).

const graph = document.getElementById("graph");
const svg = graph.querySelector(".lines");
const hint = document.getElementById("hint");
const STATES = ["failed", "running", "completed", "reused", "pending", "skipped", "cancelled"];
const MARKS = new Set(["reused", "running", "failed", "skipped", "cancelled"]);
const places = new Map([...graph.querySelectorAll("[data-key]")].map((element) => [element.dataset.key, element]));
const tasks = new Map([...graph.querySelectorAll("[data-task]")].map((element) => [element.dataset.task, element]));

function drawLines() {
  const origin = graph.getBoundingClientRect();
  const [left, top] = [origin.left - graph.scrollLeft, origin.top];
  const boxes = new Map();
  for (const [key, element] of places) {
    const box = element.getBoundingClientRect();
    boxes.set(key, { x: box.left + box.width / 2 - left, top: box.top - top, bottom: box.bottom - top });
  }
  svg.setAttribute("width", graph.scrollWidth);
  svg.setAttribute("height", graph.scrollHeight);
  for (const path of svg.children) {
    const keys = path.dataset.path.split(" ");
    const points = keys.map((key) => boxes.get(key));
    let text = `M${points[0].x} ${points[0].bottom}`;
    for (let index = 1; index < points.length; index++) {
      const [from, to] = [points[index - 1], points[index]];
      const bend = (from.bottom + to.top) / 2;
      text += `C${from.x} ${bend} ${to.x} ${bend} ${to.x} ${to.top}`;
      if (index < points.length - 1) text += `L${to.x} ${to.bottom}`;
    }
    path.setAttribute("d", text);
  }
}

function count() {
  for (const box of graph.querySelectorAll(".box")) {
    const text = box.querySelector(".counts");
    if (!text) continue;
    const found = {};
    for (const cell of box.querySelectorAll("[data-task]")) found[cell.dataset.state] = 1 + (found[cell.dataset.state] ?? 0);
    const said = STATES.filter((state) => found[state]).map((state) => `${found[state]} ${state}`).join(", ");
    if (text.textContent !== said) text.textContent = said;
  }
}

function show(task) {
  const { state } = task.dataset;
  const mark = task.querySelector(".mark");
  if (mark) mark.textContent = MARKS.has(state) ? state : "";
}

document.addEventListener("live", (event) => {
  let changed = false;
  for (const [id, state] of Object.entries(event.detail.tasks)) {
    const task = tasks.get(id);
    if (!task || task.dataset.state === state) continue;
    task.dataset.state = state;
    show(task);
    changed = true;
  }
  if (changed) count();
});

// What a box reads, and what reads it, also by lines that are not drawn otherwise.
let lit = [];
function light(box) {
  for (const element of lit) element.classList.remove("lit");
  lit = [];
  if (!box) return;
  const { key } = box.dataset;
  for (const path of svg.children) {
    const keys = path.dataset.path.split(" ");
    const [source, target] = [keys[0], keys.at(-1)];
    if (source === key || target === key) lit.push(path, places.get(source === key ? target : source));
  }
  for (const element of lit) element.classList.add("lit");
}
for (const name of ["pointerover", "focusin"]) {
  graph.addEventListener(name, (event) => {
    light(event.target.closest(".box"));
    const task = event.target.closest("[data-task]");
    hint.textContent = task ? `${task.dataset.label}: ${task.dataset.state}` : "";
  });
}
graph.addEventListener("pointerleave", () => light(null));

graph.addEventListener("click", (event) => {
  const fold = event.target.closest(".fold");
  if (!fold) return;
  const open = fold.closest(".box").classList.toggle("open");
  fold.setAttribute("aria-expanded", open);
  fold.textContent = open ? "fold" : "list";
});
// Arrow keys go from square to square, of which only one is a stop of the tab key.
graph.addEventListener("keydown", (event) => {
  const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  const cell = event.target.closest(".cell");
  if (!step || !cell) return;
  const next = step > 0 ? cell.nextElementSibling : cell.previousElementSibling;
  if (!next) return;
  cell.tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
  event.preventDefault();
});

tasks.forEach(show);
count();
new ResizeObserver(drawLines).observe(graph);
for (const box of graph.querySelectorAll(".box")) new ResizeObserver(drawLines).observe(box);
drawLines();
performance.measure("graph", { start: 0, end: performance.now() });
