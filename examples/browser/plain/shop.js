import { createClient } from "/auth/client.js";

const one = (selector) => document.querySelector(selector);
const auth = createClient();

auth.onChange((user) => {
  one("main").hidden = !user;
  one("form").hidden = Boolean(user);
  one("#who").textContent = user?.email ?? "";
});

one("form").onsubmit = (event) => {
  event.preventDefault();
  const { email, password } = Object.fromEntries(new FormData(event.target));
  auth.signIn({ email, password }).catch((error) => (one("[role=alert]").textContent = error.message));
};

one("#look").onclick = async () => {
  const { sessions } = await (await auth.fetch("/auth/sessions")).json();
  one("output").textContent = `In ${sessions.length} places`;
};

one("#leave").onclick = () => auth.signOut();
