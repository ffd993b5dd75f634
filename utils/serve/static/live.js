// Keeps a page as it is on the server: asks for [data-live] every second and puts in what has changed.

const PERIOD = 1000;
const connection = document.getElementById("connection");

/** Ask for JSON again and again, and call `changed` whenever it differs. `period` in milliseconds. */
export function watch(url, changed, period = PERIOD) {
  let tag;
  const ask = async () => {
    try {
      const answer = await fetch(url, { headers: tag ? { "If-None-Match": tag } : {}, cache: "no-store" });
      if (answer.status === 200) {
        tag = answer.headers.get("ETag");
        changed(await answer.json());
      } else if (answer.status !== 304) throw new Error(answer.statusText);
      connection.hidden = true;
    } catch (error) {
      connection.hidden = false;
      connection.title = String(error);
    }
    setTimeout(ask, document.hidden ? 4 * period : period);
  };
  setTimeout(ask, period);
}

/** Put a server's HTML into an element; parts with an id that have not changed stay, and with them the focus. */
export function put(element, html) {
  const fresh = document.createElement("template");
  fresh.innerHTML = html;
  const old = new Map([...element.children].filter((child) => child.id).map((child) => [child.id, child]));
  if (!old.size) {
    if (element.innerHTML.trim() !== html.trim()) element.replaceChildren(fresh.content);
    return;
  }
  const wanted = [...fresh.content.children].map((child) => {
    const known = old.get(child.id);
    return known && known.outerHTML === child.outerHTML ? known : child;
  });
  wanted.forEach((child, index) => {
    if (element.children[index] !== child) element.insertBefore(child, element.children[index] ?? null);
  });
  while (element.children.length > wanted.length) element.lastElementChild.remove();
}

for (const place of document.querySelectorAll("[data-live]")) {
  watch(place.dataset.live, (state) => {
    for (const [id, html] of Object.entries(state.html)) {
      const element = document.getElementById(id);
      if (element) put(element, html);
    }
    document.dispatchEvent(new CustomEvent("live", { detail: state }));
  });
}
