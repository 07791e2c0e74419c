// Passkeys on the pages. A form with `data-passkey` gets options from that address, asks the browser for a passkey, and
// sends what it answers as one more field. The server answers with a page, as it does to every form.

const known = globalThis.PublicKeyCredential;
const available = known?.parseRequestOptionsFromJSON && known.parseCreationOptionsFromJSON;
const RENEW = 240000; // milliseconds: a challenge lives for five minutes

let suggesting; // the request behind the suggestions in the field of the address; a browser takes one at a time

async function send(form, how) {
  const headers = {};
  if (form.elements.csrf_token) headers["X-CSRF-Token"] = form.elements.csrf_token.value;
  const answer = await fetch(form.dataset.passkey, { method: "POST", headers });
  // The session or the sign-in is over, or a fresh proof is needed: the server knows the way from here.
  if ([401, 403].includes(answer.status)) return location.reload();
  const { publicKey } = await answer.json();
  const creates = "create" in form.dataset;
  const options = known[creates ? "parseCreationOptionsFromJSON" : "parseRequestOptionsFromJSON"](publicKey);
  const credential = await navigator.credentials[creates ? "create" : "get"]({ publicKey: options, ...how });
  form.elements.response.value = JSON.stringify(credential);
  form.submit();
}

// The browser suggests passkeys in a field with autocomplete="webauthn". The request waits for as long as the page is
// open, and gets a new challenge before the old one expires.
function suggest(form) {
  const mine = (suggesting = new AbortController());
  const again = () => {
    if (document.hidden) return document.addEventListener("visibilitychange", again, { once: true });
    if (mine !== suggesting) return;
    mine.abort();
    suggest(form);
  };
  setTimeout(again, RENEW);
  send(form, { mediation: "conditional", signal: mine.signal }).catch(() => {});
}

for (const form of document.querySelectorAll("form[data-passkey]")) {
  if (!available) break;
  const { failed, exists, suggests } = form.dataset;
  const button = form.querySelector("button");
  const words = form.querySelector("[role=alert]");
  let may = suggests !== undefined && known.isConditionalMediationAvailable?.();
  Promise.resolve(may).then((can) => (may = can) && suggest(form));
  form.hidden = false;
  for (const other of document.querySelectorAll("[data-without-passkeys]")) other.hidden = true;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    suggesting?.abort();
    suggesting = null;
    words.textContent = "";
    button.disabled = true;
    try {
      await send(form);
    } catch (error) {
      words.textContent = error.name === "InvalidStateError" ? exists : failed;
      if (may) suggest(form);
    }
    button.disabled = false;
  });
}
