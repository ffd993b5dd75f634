// Draws plotly figures in the page's colours, light or dark.

const DASHES = ["solid", "dash", "dot"];
let loading;

/** Plotly's script, loaded when the first chart is drawn. */
function plotly() {
  if (globalThis.Plotly) return Promise.resolve(globalThis.Plotly);
  loading ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = "/static/plotly.js";
    script.addEventListener("load", () => resolve(globalThis.Plotly));
    script.addEventListener("error", () => reject(new Error("the charts could not be loaded")));
    document.head.append(script);
  });
  return loading;
}

function colours() {
  const style = getComputedStyle(document.documentElement);
  return (name) => style.getPropertyValue(`--${name}`).trim();
}

function themed(figure) {
  const colour = colours();
  const axis = { gridcolor: colour("rule"), zerolinecolor: colour("rule"), linecolor: colour("rule"), automargin: true };
  const data = figure.data.map((trace) => ({
    ...trace,
    line: { color: colour(`c${trace.meta.color}`), width: 2, dash: DASHES[trace.meta.dash] ?? "solid" },
    marker: { color: colour(`c${trace.meta.color}`), size: 5 },
  }));
  const layout = {
    ...figure.layout,
    xaxis: { ...axis, ...figure.layout.xaxis },
    yaxis: { ...axis, ...figure.layout.yaxis },
    paper_bgcolor: "transparent",
    plot_bgcolor: "transparent",
    font: { color: colour("soft"), size: 12, family: getComputedStyle(document.body).fontFamily },
    hoverlabel: { bgcolor: colour("card"), bordercolor: colour("rule"), font: { color: colour("ink") } },
    hovermode: "x unified",
    margin: { l: 55, r: 15, t: 12, b: 45 },
    uirevision: "kept",
  };
  return [data, layout];
}

/** Show figures ({key, title, data, layout}) in an element, one chart each; charts that are there are kept. */
export async function draw(place, figures) {
  if (!figures.length) {
    place.replaceChildren();
    return;
  }
  const Plotly = await plotly();
  const wanted = new Set(figures.map((figure) => figure.key));
  for (const old of [...place.children]) if (!wanted.has(old.dataset.key)) old.remove();
  for (const figure of figures) {
    let section = [...place.children].find((child) => child.dataset.key === figure.key);
    if (!section) {
      section = document.createElement("section");
      section.dataset.key = figure.key;
      const title = document.createElement("h3");
      const chart = document.createElement("div");
      title.textContent = figure.title;
      chart.className = "chart";
      chart.setAttribute("role", "img");
      section.append(title, chart);
    }
    place.append(section);
    const chart = section.lastElementChild;
    const last = figure.data.map((trace) => `${trace.name}: ${trace.y.at(-1)}`).join("; ");
    chart.setAttribute("aria-label", `${figure.title}; now ${last}`);
    await Plotly.react(chart, ...themed(figure), { responsive: true, displaylogo: false, displayModeBar: false });
  }
  place.dataset.drawn = figures.length;
}

/** Call `redraw` when the system changes between light and dark. */
export function onTheme(redraw) {
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
}
