"use client";
import { createClient } from "dutchdoor";
import { useRouter } from "next/navigation";
import { useState } from "react";

const auth = createClient(process.env.NEXT_PUBLIC_AUTH_URL ?? "http://localhost:8000");

export function SignIn() {
  const router = useRouter();
  const [wrong, setWrong] = useState("");
  const submit = async (event) => {
    event.preventDefault();
    const { email, password } = Object.fromEntries(new FormData(event.target));
    await auth.signIn({ email, password }).then(() => router.refresh(), (error) => setWrong(error.message));
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

export function SignOut() {
  const router = useRouter();
  return <button onClick={() => auth.signOut().then(() => router.refresh())}>Sign out</button>;
}
