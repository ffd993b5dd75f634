// A task's log: its end at first, then what is written, and what came before when it is asked for.

const place = document.getElementById("log-text");
const note = document.getElementById("log-note");
const follow = document.getElementById("follow");
const PERIOD = 1000;
const MOST = 20000; // lines that are kept in the page
let offset;
let partial;

function line(text, kind) {
  const element = document.createElement("div");
  element.textContent = text || " ";
  if (kind) element.className = kind;
  return element;
}

function add(piece) {
  partial?.remove();
  partial = undefined;
  if (offset !== undefined && piece.start < offset) place.replaceChildren(); // begun anew
  if (offset === undefined) {
    note.textContent = piece.start ? `· ${(piece.start / 1e6).toFixed(1)} MB before these lines are in the text` : "";
  }
  place.append(...piece.lines.map(([text, kind]) => line(text, kind)));
  while (place.children.length > MOST) place.firstElementChild.remove();
  if (piece.partial) {
    partial = line(piece.partial, "partial");
    place.append(partial);
  }
  offset = piece.end;
  if (follow.checked) place.scrollTop = place.scrollHeight;
}

async function ask() {
  let wait = PERIOD;
  try {
    const answer = await fetch(place.dataset.log + (offset === undefined ? "" : `?offset=${offset}`), { cache: "no-store" });
    if (!answer.ok) throw new Error(answer.statusText);
    const piece = await answer.json();
    add(piece);
    if (piece.ended) {
      if (!place.children.length) note.textContent = "· there is none";
      return;
    }
    if (!piece.at_end) wait = 0;
  } catch (error) {
    note.textContent = `· ${error.message}; trying again`;
    wait = 3 * PERIOD;
  }
  setTimeout(ask, wait);
}

// Whoever scrolls up reads, and is not to be pulled down again.
place.addEventListener("scroll", () => {
  follow.checked = place.scrollTop + place.clientHeight >= place.scrollHeight - 8;
});
follow.addEventListener("change", () => {
  if (follow.checked) place.scrollTop = place.scrollHeight;
});
ask();
