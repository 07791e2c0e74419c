// The script of all pages. It writes only text, never markup, so that text from a response or a link cannot run as code
// (cross-site scripting). Trusted Types enforce this, without any policy.

const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const one = (selector, within = document) => within.querySelector(selector);

// A one-time token is after the '#'. The script removes it from the address bar and the history first: it could leak over
// a shoulder, in a screenshot or in a synchronised history.
const takesToken = document.body.hasAttribute("data-takes-token");
const token = takesToken ? location.hash.slice(1) : "";
if (token) history.replaceState(null, "", location.pathname);

for (const part of all("[data-if]")) part.hidden = part.dataset.if !== (token ? "token" : "no-token");

// If the user opens another link to the same page, only the part after the '#' changes, and the browser does not reload.
addEventListener("hashchange", () => takesToken && location.hash.length > 1 && location.reload());

// Every text is in the page, in its language; a duration is written by the browser.
function waiting(seconds) {
  const [length, unit] = seconds < 90 ? [1, "second"] : seconds < 5400 ? [60, "minute"] : [3600, "hour"];
  const written = new Intl.NumberFormat(document.documentElement.lang, { style: "unit", unit, unitDisplay: "long" });
  return written.format(Math.ceil(seconds / length));
}

function words(problem, texts) {
  const said = problem.detail || problem.title || texts.failed;
  return problem.retry_after ? `${said} ${texts.later.replace("%(time)s", waiting(problem.retry_after))}` : said;
}

async function call(path, body, texts) {
  try {
    const answer = await fetch(path, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
      // The server must recognise the browser that registered: only there is an address confirmed without a password.
      credentials: "same-origin",
      referrerPolicy: "no-referrer",
    });
    if (answer.ok) return null;
    return await answer.json().catch(() => ({ title: texts.unreadable }));
  } catch {
    return { title: texts.unreachable };
  }
}

for (const form of all("form[data-call]")) {
  const button = one("button[type=submit]", form);
  const wrong = one(".wrong", form);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (button.getAttribute("aria-disabled")) return;
    button.setAttribute("aria-disabled", "true");
    wrong.textContent = "";
    for (const input of all("input", form)) {
      input.removeAttribute("aria-invalid");
      input.removeAttribute("aria-describedby");
    }
    const body = Object.fromEntries([...new FormData(form)].filter(([, value]) => value));
    if (form.hasAttribute("data-with-token")) body.token = token;
    const problem = await call(form.dataset.call, body, wrong.dataset);
    button.removeAttribute("aria-disabled");
    // A part of the form that is shown only if the server asks for it.
    const asked = problem && all("[data-when]", form).find((part) => part.dataset.when === problem.code && part.hidden);
    if (asked) {
      asked.hidden = asked.disabled = false;
      one("input", asked).focus();
      return;
    }
    if (problem) {
      wrong.textContent = words(problem, wrong.dataset);
      const input = problem.field && one(`input[name="${CSS.escape(problem.field)}"]`, form);
      if (input) {
        input.setAttribute("aria-invalid", "true");
        input.setAttribute("aria-describedby", wrong.id);
      }
      (input || button).focus();
      return;
    }
    form.reset();
    const section = form.closest("section");
    const done = section.nextElementSibling;
    section.hidden = true;
    done.hidden = false;
    done.focus();
  });
}

for (const button of all("button[data-show]")) {
  const input = document.getElementById(button.dataset.show);
  const texts = { show: button.textContent, hide: button.dataset.hide };
  button.hidden = false;
  button.addEventListener("click", () => {
    const shown = input.type === "password";
    input.type = shown ? "text" : "password";
    button.setAttribute("aria-pressed", String(shown));
    button.textContent = shown ? texts.hide : texts.show;
  });
}

// The back button after a log-out: Chromium keeps whole pages, in spite of no-store, and shows them without asking the
// server. A page that comes back shows nothing until it is loaded again.
addEventListener("pagehide", () => (document.documentElement.hidden = true));
addEventListener("pageshow", (event) => event.persisted && location.reload());

// Times are in UTC on the page. A browser knows where it is.
for (const time of all("time")) {
  const at = new Date(time.dateTime);
  time.textContent = at.toLocaleString(document.documentElement.lang, { dateStyle: "long", timeStyle: "short" });
}

// What was ended is not refused everywhere yet: look again.
if (one("[data-reload]")) setTimeout(() => location.reload(), 2000);

// A form is sent once: the answer to the first of two would be lost.
for (const form of all("form[method=post]:not([data-call])")) {
  form.addEventListener("submit", (event) => (form.dataset.sent ? event.preventDefault() : (form.dataset.sent = "1")));
  addEventListener("pageshow", () => delete form.dataset.sent);
}

for (const button of all("button[data-print]")) {
  button.hidden = false;
  button.addEventListener("click", () => print());
}

// The API page: a filter, and a link to a closed part opens the part.
const filter = one("#filter");
if (filter) {
  filter.closest("label").hidden = false;
  filter.addEventListener("input", () => {
    const wanted = filter.value.trim().toLowerCase();
    for (const group of all("[data-group]")) {
      const entries = all("li", group);
      for (const entry of entries) entry.hidden = !entry.textContent.toLowerCase().includes(wanted);
      group.hidden = entries.every((entry) => entry.hidden);
    }
  });
  const open = () => {
    const part = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    const details = part && one("details", part);
    if (details) details.open = true;
  };
  addEventListener("hashchange", open);
  open();
}
