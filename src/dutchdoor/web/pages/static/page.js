// The script of all pages. It writes only text, never markup, so that text from a response or a link cannot run as code
// (cross-site scripting). Trusted Types enforce this, without any policy.

const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const one = (selector, within = document) => within.querySelector(selector);

// The link of a mail has its one-time token after the '#'. It goes into the form, and first of all out of the address
// bar and the history: it could leak over a shoulder, in a screenshot or in a synchronised history.
const field = one("input[data-fragment]");
function takeFragment() {
  const given = location.hash.slice(1);
  if (!field || !given) return;
  history.replaceState(null, "", location.pathname + location.search);
  try {
    field.value = decodeURIComponent(given);
  } catch {
    field.value = given;
  }
  field.closest("label").hidden = field.dataset.fragment === "hide";
  const next = all("input", field.form).find((input) => !input.value && input.offsetParent);
  if (next && !one("[role=alert]")) next.focus();
}
takeFragment();
// If the person opens another link to the same page, the browser does not load the page again.
addEventListener("hashchange", takeFragment);

// How hard a new password is to guess, as the server judges it, for each pause in typing.
for (const shown of all("[data-strength]")) {
  const input = document.getElementById(shown.dataset.of);
  const meter = one("meter", shown);
  const fields = input.form.elements;
  let timer;
  let number = 0;
  const judge = async () => {
    const mine = ++number;
    const body = { password: input.value, email: fields.email?.value ?? "", name: fields.name?.value ?? "" };
    const said = await fetch(shown.dataset.strength, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    }).then((answer) => answer.ok && answer.json()).catch(() => null);
    if (mine !== number) return;
    shown.hidden = !said;
    if (!said) return;
    meter.value = said.level;
    one("span", shown).textContent = said.says;
  };
  const wait = () => {
    clearTimeout(timer);
    number++;
    if (input.value.length < input.minLength) shown.hidden = true;
    else timer = setTimeout(() => judge(), 300);
  };
  for (const field of [input, fields.email, fields.name]) field?.addEventListener("input", wait);
}

for (const button of all("button[data-show]")) {
  const input = document.getElementById(button.dataset.show);
  const words = [button.textContent, button.dataset.hide];
  button.hidden = false;
  button.addEventListener("click", () => {
    const shown = input.type === "password";
    input.type = shown ? "text" : "password";
    button.setAttribute("aria-pressed", String(shown));
    button.textContent = words[Number(shown)];
  });
}

// The back button after a log-out: Chromium keeps whole pages, in spite of no-store, and shows them without asking the
// server. A page that comes back shows nothing until it is loaded again.
addEventListener("pagehide", () => (document.documentElement.hidden = true));
addEventListener("pageshow", (event) => event.persisted && location.reload());

// Times are in UTC on the page. A browser knows where it is, and how dates are written there (in English: 29 November or
// November 29). Some pages compare times, and keep UTC.
const language = document.documentElement.lang;
const isSpoken = (tag) => /^[\w-]+$/.test(tag) && tag.split("-")[0] === language.split("-")[0];  // not en-US@posix
const locale = navigator.languages.find(isSpoken) ?? language;
for (const time of all("time:not([data-utc])")) {
  const at = new Date(time.dateTime);
  time.textContent = at.toLocaleString(locale, { dateStyle: "long", timeStyle: "short" });
}

// What was ended is not refused everywhere yet: look again.
if (one("[data-reload]")) setTimeout(() => location.reload(), 2000);

// A form is sent once: the answer to the first of two would be lost, and the link of a mail works once.
for (const form of all("form[method=post]")) {
  form.addEventListener("submit", (event) => (form.dataset.sent ? event.preventDefault() : (form.dataset.sent = "1")));
  addEventListener("pageshow", () => delete form.dataset.sent);
}

for (const button of all("button[data-print]")) {
  button.hidden = false;
  button.addEventListener("click", () => print());
}
for (const button of all("button[data-copy]")) {
  button.hidden = !navigator.clipboard;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).innerText);
    button.textContent = button.dataset.done;
  });
}
for (const button of all("button[data-save]")) {
  button.hidden = false;
  button.addEventListener("click", () => {
    const file = new Blob([document.getElementById(button.dataset.save).innerText + "\n"], { type: "text/plain" });
    const link = document.createElement("a");
    link.href = URL.createObjectURL(file);
    link.download = button.dataset.as;
    link.click();
    URL.revokeObjectURL(link.href);
  });
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
