// What a task takes of the machine, drawn as it is sampled.

import { draw, onTheme } from "./charts.js";

const section = document.getElementById("resources");
const place = document.getElementById("resource-charts");
const PERIOD = 2000;
let shown = [];

async function ask() {
  try {
    const state = await (await fetch(section.dataset.resources, { cache: "no-store" })).json();
    if (state.figures.length) {
      section.hidden = false;
      shown = state.figures;
      await draw(place, shown);
    }
    if (state.ended) return;
  } catch (error) {
    console.warn(error);
  }
  setTimeout(ask, PERIOD);
}

onTheme(() => draw(place, shown));
ask();
