// The browser client: who is signed in, the same in every tab, and requests that prove it.
//
// The access token is in the memory of this tab and of other tabs of this origin, and never in storage, a URL or a log.
// What outlives a page is the server's HttpOnly cookie, which no script reads. Only that the lock, the messages and the
// timers work saves requests; that two refreshes at once sign no one out is the server's work.

const WAIT = 5000; // milliseconds to wait for another tab, which may be frozen
const HOLD = 100; // milliseconds in which a message reaches the other tabs
const AGAIN = 10000; // milliseconds after a failure

// A refusal of the server. `code` is one of those that the server documents, and `token` what the next step needs.
export class AuthError extends Error {
  constructor(status, { detail, retry_after: retryAfter, ...more }) {
    super(detail || `The server answered ${status}, without a reason.`);
    Object.assign(this, more, { name: "AuthError", status, retryAfter });
  }
}

const has = (error, ...statuses) => statuses.includes(error.code && error.status);

export function createClient(url, { origins = [] } = {}) {
  // On a server that renders pages there is no location, and nothing happens.
  const page = globalThis.document;
  const here = globalThis.location?.href ?? "http://localhost";
  const served = import.meta.url.match(/^(.*)\/auth\/client\.js$/)?.[1];
  const base = new URL(url ?? served ?? "/", here).href.replace(/\/$/, "");
  const home = new URL(base).origin;
  // A bearer token sent to a foreign server would be stolen: exact origins, no patterns.
  const trusted = [home, here, ...origins].map((each) => new URL(each).origin);
  const name = `dutchdoor ${base}`;
  const channel = page && new BroadcastChannel(name);
  const listeners = new Set();
  // `user` is undefined until it is known, and null when no one is signed in. Without a token it is the mode session;
  // a token without `csrf` is the mode jwt. `due` is when the token should be replaced, or cannot be used any more.
  let state = { at: 0 };
  let timer, renewing, stale;

  const tell = (listener) => queueMicrotask(() => listener(state.user));

  function plan(delay) {
    clearTimeout(timer);
    timer = setTimeout(wake, delay);
  }

  function set(next, received) {
    const same = JSON.stringify(next.user) === JSON.stringify(state.user);
    if (same) next.user = state.user; // frameworks compare objects
    next.at ??= Math.max(Date.now(), state.at + 1);
    state = next;
    if (!received) channel.postMessage(state);
    clearTimeout(timer);
    if (state.due) plan(Math.max(state.due - Date.now(), 1000));
    if (!same) listeners.forEach(tell);
  }

  async function call(path, body, { token, csrf } = {}) {
    const headers = {};
    if (body) headers["content-type"] = "application/json";
    if (token) headers.authorization = `Bearer ${token}`;
    if (csrf) headers["x-csrf-token"] = csrf;
    const sent = { method: body ? "POST" : "GET", headers, credentials: "include", body: body && JSON.stringify(body) };
    const response = await fetch(`${base}/auth/${path}`, sent);
    const answer = await response.json().catch(() => {});
    if (response.ok && answer) return answer;
    throw new AuthError(response.status, answer ?? {});
  }

  const taken = ({ user, access_token: token, csrf_token: csrf, expires_in: life }) => ({
    ...{ user, token, csrf },
    due: token && Date.now() + life * (csrf ? 900 : 1000),
  });

  async function found({ at, token, csrf }) {
    if (token && !csrf) return { ...state, at: undefined, user: (await call("me", null, { token })).user };
    let mode;
    if (!token) {
      ({ csrf_token: csrf, mode } = await call("csrf"));
      if (state.at > at) return; // another tab has answered meanwhile
    }
    if (mode === "session") return { csrf, user: (await call("me")).user };
    return taken(await call("refresh", {}, { csrf }));
  }

  // Ask the server who is signed in, with a new token if there are tokens.
  async function look(before) {
    let next;
    try {
      next = await found(before).catch((error) => {
        // The cookie may be another one by now: one of a sign-in on a page of the server.
        if (before.token ? has(error, 401, 403, 409) : has(error, 409)) return found({ at: before.at });
        throw error;
      });
    } catch (error) {
      if (!has(error, 401)) {
        plan(AGAIN); // offline is not signed out, nor is an outage
        throw error;
      }
      next = { user: null };
    }
    if (state === before) set(next);
  }

  // One tab at a time. One that never ends holds the others up no longer than WAIT.
  const alone = (work) =>
    new Promise((resolve) => {
      const go = () => {
        const before = state;
        const done = work();
        const hold = () => state !== before && new Promise((end) => setTimeout(end, HOLD));
        resolve(done);
        return done.then(hold, hold);
      };
      if (!navigator.locks) return go(); // plain HTTP
      const stop = new AbortController();
      setTimeout(() => stop.abort(), WAIT);
      navigator.locks.request(name, { signal: stop.signal }, go).catch(go);
    });

  // Replace what is known now, unless another tab does it while this one waits for its turn.
  function renew() {
    stale = state;
    renewing ??= alone(async () => state === stale && look(stale)).finally(() => (renewing = null));
    return renewing.catch(() => {});
  }

  function wake() {
    if (!page.hidden && !(Date.now() < state.due)) renew();
  }

  function attempt(request, origin) {
    const { token, csrf } = state;
    const { headers, method } = request;
    if (token) headers.set("authorization", `Bearer ${token}`);
    if (origin !== home) return fetch(request);
    if (csrf && !/^(GET|HEAD)$/.test(method)) headers.set("x-csrf-token", csrf);
    return fetch(new Request(request, { credentials: "include" }));
  }

  async function refused(response) {
    if (response.status === 401) return !/insufficient_/.test(response.headers.get("www-authenticate"));
    if (response.status !== 403 || state.token) return false;
    return (await response.clone().json().catch(() => 0)).code === "csrf_token";
  }

  async function signIn(path, proof) {
    await alone(async () => set(taken(await call(path, proof))));
    return state.user;
  }

  const leave = (proof) => call("logout", {}, proof);

  if (page) {
    channel.onmessage = ({ data }) => {
      if (!data.at) state.user && channel.postMessage(state);
      else if (data.at > state.at) set(data, true);
    };
    page.addEventListener("visibilitychange", wake);
    addEventListener("online", wake);
    channel.postMessage({});
    renew();
  }

  return {
    get user() {
      return state.user;
    },
    ready: new Promise((resolve) => listeners.add(resolve)),
    onChange(listener) {
      listeners.add(listener);
      if (state.user !== undefined) tell(listener);
      return () => listeners.delete(listener);
    },
    signIn: (given = {}) => signIn(given.method ? "login/step" : "login", given),
    async signInWith(issuer, { next = location.href.replace(home, "") } = {}) {
      location.href = (await call(`issuers/${issuer}/start`, { next })).url;
    },
    code: (given = {}) => (given.code ? signIn("login/code", { ...given, expires_in: undefined }) : call("code", { email: given })),
    async passkey({ mode, token, ...how } = {}) {
      const { publicKey } = await call(`passkeys/${token ? "step" : "login"}/options`, { token });
      how.publicKey = PublicKeyCredential.parseRequestOptionsFromJSON(publicKey);
      const response = await navigator.credentials.get(how);
      return token ? signIn("login/step", { response, token, method: "passkey" }) : signIn("passkeys/login", { response, mode });
    },
    signOut: () =>
      alone(async () => {
        const fence = await leave(state)
          .catch(async (error) => {
            if (!has(error, 401, 403)) throw error;
            return leave({ csrf: (await call("csrf")).csrf_token });
          })
          .catch((error) => {
            if (!has(error, 401)) throw error;
            return { fenced: true, fenced_in_ms: 0, ended: 0 }; // nothing is left to end
          });
        set({ user: null });
        return fence;
      }),
    async fetch(input, init) {
      const request = new Request(input, init);
      const { origin } = new URL(request.url);
      if (!trusted.includes(origin)) return fetch(request);
      if (state.user === undefined || (state.csrf && state.due < Date.now())) await renew();
      const used = state;
      const response = await attempt(request.clone(), origin);
      if (!used.user || !(await refused(response))) return response;
      if (state === used) await renew();
      return state !== used && state.user ? attempt(request, origin) : response;
    },
  };
}
