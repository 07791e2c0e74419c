// Beside `dutchdoor serve`: npm ci && npm run dev
import { createClient } from "dutchdoor";
import { useState, useSyncExternalStore } from "react";
import { createRoot } from "react-dom/client";

const auth = createClient();

function SignIn() {
  const [wrong, setWrong] = useState("");
  const submit = (event) => {
    event.preventDefault();
    const { email, password } = Object.fromEntries(new FormData(event.target));
    auth.signIn({ email, password }).catch((error) => setWrong(error.message));
  };
  return (
    <form onSubmit={submit}>
      <p role="alert">{wrong}</p>
      <label>E-mail <input name="email" type="email" autoComplete="username" required /></label>
      <label>Password <input name="password" type="password" autoComplete="current-password" required /></label>
      <button>Sign in</button>
    </form>
  );
}

function Shop() {
  const user = useSyncExternalStore(auth.onChange, () => auth.user);
  const [devices, setDevices] = useState(null);
  if (!user) return user === null ? <SignIn /> : <p>One moment.</p>;
  const look = async () => setDevices((await (await auth.fetch("/auth/sessions")).json()).sessions.length);
  return (
    <>
      <h1>Hello {user.email}</h1>
      <button onClick={look}>Where am I signed in?</button> {devices && <output>In {devices} places</output>}
      <button onClick={() => auth.signOut()}>Sign out</button>
    </>
  );
}

createRoot(document.querySelector("main")).render(<Shop />);
