// Buttons that change something. Without the token the server refuses, and says how to get it.

const said = document.getElementById("action-said");
for (const button of document.querySelectorAll("[data-action]")) {
  button.addEventListener("click", async () => {
    if (button.dataset.confirm && !confirm(button.dataset.confirm)) return;
    button.disabled = true;
    said.textContent = "…";
    try {
      const answer = await fetch(button.dataset.action, { method: "POST", headers: { "X-Limbeck-Action": "1", Accept: "text/plain" } });
      said.textContent = await answer.text();
    } catch (error) {
      said.textContent = String(error);
    } finally {
      button.disabled = false;
    }
  });
}
