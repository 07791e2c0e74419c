// What the types of the browser client promise, and what they refuse. `tsc --strict` reads it; nothing runs it.
import { AuthError, createClient, type Client, type CodeSent, type Credentials, type Fence, type User } from "dutchdoor";

const auth: Client = createClient();
createClient("/id");
createClient(new URL("https://auth.example.com"), { origins: ["https://api.example.com"] });

const known: User | null | undefined = auth.user;
const stop: () => void = auth.onChange((user) => {
  const email: string | null | undefined = user?.email;
  const admin: boolean = user?.roles.includes("admin") ?? false;
  console.log(email, admin);
});
stop();

export async function use(): Promise<Fence> {
  const credentials: Credentials = { email: "ada@example.com", password: "x", mode: "hybrid" };
  try {
    const user: User = await auth.signIn(credentials);
    const { token, expires_in }: CodeSent = await auth.code("ada@example.com");
    const mailed: User = await auth.code({ token, code: "123456", mode: "session" });
    await auth.signInWith("google");
    await auth.signInWith("google", { next: "/orders" });
    const held: User = await auth.passkey({ mediation: "conditional", signal: new AbortController().signal });
    console.log(held.name, await auth.passkey());
    const response: Response = await auth.fetch("/api", { method: "POST", body: user.id });
    const again: Response = await auth.fetch(new Request("/api"));
    console.log(response.ok, again.ok, known, mailed, expires_in > 0);
  } catch (error) {
    if (error instanceof AuthError && error.token && error.methods?.includes("totp")) {
      await auth.signIn({ token: error.token, method: "totp", response: "123456", remember: true });
      await auth.passkey({ token: error.token });
    }
    if (error instanceof AuthError && error.code === "rate_limited") {
      const seconds: number | undefined = error.retryAfter;
      console.log(error.status, error.field, error.message, seconds);
    }
  }
  const first: User | null = await auth.ready;
  console.log(first);
  return auth.signOut();
}

// @ts-expect-error no password
void auth.signIn({ email: "ada@example.com" });
// @ts-expect-error no token
void auth.code({ code: "123456" });
// @ts-expect-error no such pattern
void auth.signIn({ email: "a", password: "b", mode: "cookie" });
// @ts-expect-error the user is what the server says
auth.user = null;
// @ts-expect-error a user that may be null
auth.onChange((user) => console.log(user.email));
// @ts-expect-error one origin is a list too
createClient("/", { origins: "https://api.example.com" });
