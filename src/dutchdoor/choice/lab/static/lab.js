// The script of the lab: clocks that run, and the table asked anew. It writes only text, never markup. Without it, the
// page is the same, as of when it was loaded.

const all = (selector) => [...document.querySelectorAll(selector)];

// The time that an access token has left.
function tick() {
  for (const clock of all("[data-until]")) {
    const left = Math.max(Number(clock.dataset.until) - Math.floor(Date.now() / 1000), 0);
    clock.textContent = left ? `${Math.floor(left / 60)}:${String(left % 60).padStart(2, "0")}` : clock.dataset.over;
  }
}
setInterval(tick, 1000);
tick();

// Who is accepted now: asked of the servers each time.
const isBusy = () => document.hidden || document.querySelector("form[aria-busy]");
async function look() {
  if (isBusy()) return;
  const answer = await fetch("/lab/now").catch(() => null);
  if (isBusy()) return;  // a button was pressed, and its answer is a new page
  if (answer?.status === 204) location.reload();  // the lab has ended
  if (answer?.status !== 200) return;
  const said = await answer.json();
  for (const cell of all("[data-cell]")) {
    const { state, text } = said.cells[cell.dataset.cell];
    cell.dataset.state = state;
    if (cell.textContent !== text) cell.textContent = text;
  }
  for (const outcome of all("[data-outcome]")) {
    const text = said.outcomes[outcome.dataset.outcome] ?? "";
    if (outcome.textContent !== text) outcome.textContent = text;
  }
}
if (document.querySelector("[data-live]")) setInterval(look, 1500);

// A start takes a moment: the button says so, and a second press does nothing.
for (const form of all("form")) {
  form.addEventListener("submit", (event) => {
    if (form.dataset.sent) event.preventDefault();
    form.dataset.sent = "1";
    form.setAttribute("aria-busy", "true");
  });
  addEventListener("pageshow", () => {
    delete form.dataset.sent;
    form.removeAttribute("aria-busy");
  });
}
