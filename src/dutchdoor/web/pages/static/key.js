// A key of this browser. It is made before a sign-in, whose form takes the public part along in a cookie. When the server
// doubts that the session is still here, the key answers, and its owner is asked nothing. No script can read the private
// part, so a copied cookie comes without it.

const NAME = document.querySelector("script[data-cookie]").dataset.cookie;
const KEPT = 5; // keys of the newest sign-ins

const result = (request) =>
  new Promise((done, failed) => {
    request.onsuccess = () => done(request.result);
    request.onerror = failed;
  });

async function keys(mode) {
  const opening = indexedDB.open("dutchdoor", 1);
  opening.onupgradeneeded = () => opening.result.createObjectStore("keys", { autoIncrement: true });
  return (await result(opening)).transaction("keys", mode).objectStore("keys");
}

// Keep a new key for the next sign-in, which takes the cookie away. Until then it stays the next one: who often opens the
// sign-in page must not lose the key of their session.
async function make() {
  if (document.cookie.split("; ").some((each) => each.startsWith(`${NAME}=`))) return;
  const { publicKey, privateKey } = await crypto.subtle.generateKey({ name: "ECDSA", namedCurve: "P-256" }, false, ["sign"]);
  const { x, y } = await crypto.subtle.exportKey("jwk", publicKey);
  const kept = await keys("readwrite");
  const number = await result(kept.add({ name: `${x}.${y}`, privateKey }));
  kept.delete(IDBKeyRange.upperBound(number - KEPT));
  const secure = NAME.startsWith("__Host-") ? "; Secure" : "";
  document.cookie = `${NAME}=${x}.${y}; Path=/; SameSite=Strict; Max-Age=2592000${secure}`;
}

async function answer({ challenge, key, csrf, answer, to }) {
  const kept = await result((await keys("readonly")).getAll());
  const { privateKey } = kept.find((each) => each.name === key);
  const signed = await crypto.subtle.sign({ name: "ECDSA", hash: "SHA-256" }, privateKey, new TextEncoder().encode(challenge));
  const said = await fetch(answer, {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-CSRF-Token": csrf },
    body: JSON.stringify({ challenge, signature: btoa(String.fromCharCode(...new Uint8Array(signed))) }),
  });
  if (!said.ok) throw said.status;
  location.replace(to);
}

const asked = document.querySelector("[data-challenge]");
if (asked) {
  const ask = () => {
    asked.hidden = false;
    asked.querySelector("[autofocus]")?.focus();
    return make();
  };
  asked.hidden = true;
  const late = setTimeout(() => ask(), 5000);
  answer(asked.dataset).catch(() => ask()).catch(() => {}).then(() => clearTimeout(late));
} else if (document.querySelector("form[method=post]")) {
  make().catch(() => {});
}
