// The curves of the trainings that are chosen, kept up to date while one of them runs.

import { draw, onTheme } from "./charts.js";

const form = document.getElementById("choice");
const charts = document.getElementById("charts");
const PERIOD = 3000;
let shown = [];
let timer;
let tag;

/** The colours of the curves beside the names of their trainings: the charts have no other legend. */
function mark() {
  let number = 0;
  for (const label of form.querySelectorAll("label")) {
    const swatch = label.querySelector(".swatch");
    swatch.className = "swatch";
    if (!label.querySelector("input").checked) continue;
    swatch.classList.add(`k${number % 6}`, ...(number >= 6 ? ["dashed"] : []));
    number += 1;
  }
}

async function show(again) {
  mark();
  clearTimeout(timer);
  const query = new URLSearchParams(new FormData(form));
  if (!again) {
    tag = undefined;
    history.replaceState(null, "", `/curves?${query}`);
  }
  try {
    const answer = await fetch(`/curves/data?${query}`, { headers: tag ? { "If-None-Match": tag } : {}, cache: "no-store" });
    if (answer.status === 200) {
      tag = answer.headers.get("ETag");
      shown = (await answer.json()).figures;
      await draw(charts, shown);
    }
  } catch (error) {
    console.warn(error);
  }
  timer = setTimeout(() => show(true), PERIOD);
}

if (form) {
  form.addEventListener("change", () => show(false));
  onTheme(() => draw(charts, shown));
  show(true);
}
