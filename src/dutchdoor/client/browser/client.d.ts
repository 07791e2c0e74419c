/** An account, as the server describes it. */
export interface User {
  id: string;
  /** `null` for a user of the application's own who has no address here. */
  email: string | null;
  name: string;
  roles: string[];
  email_verified: boolean;
}

/** What a page gives to sign in. `email` is the login, where the application keeps its users itself. */
export interface Credentials {
  email: string;
  password: string;
  /** The pattern, if it is not the server's default. */
  mode?: "session" | "hybrid" | "jwt";
}

/** The next step of a sign-in that a second factor is missing from: what an `AuthError` of it holds. */
export interface NextStep {
  /** Of the `AuthError` with the code `sign_in_unfinished`. */
  token: string;
  /** One of its `methods`, such as `totp` or `recovery_code`. */
  method: string;
  /** What the person types. */
  response: string;
  /** Whether this browser may skip the step next time. */
  remember?: boolean;
}

/** Where people go from a log-in at another issuer. */
export interface Way {
  /** A path of the server's origin, or an address at a listed origin. If it is left out, it is this page. */
  next?: string;
}

/** What the server answers who asks for a code by mail. */
export interface CodeSent {
  /** Half of the proof: the code works with this alone. Keep it in the page. */
  token: string;
  /** Seconds until the code is void. */
  expires_in: number;
}

/** A mailed code, and the token of the page that asked for it. */
export interface MailedCode {
  token: string;
  code: string;
  /** Not needed: so that the answer to the first call can be passed on with the code. */
  expires_in?: number;
  /** The pattern, if it is not the server's default. */
  mode?: "session" | "hybrid" | "jwt";
}

/** How a passkey is asked for. */
export interface PasskeyOptions {
  /** `conditional` lets the browser suggest it in a field with `autocomplete="username webauthn"`. */
  mediation?: CredentialMediationRequirement;
  /** Ends the request, such as that of the suggestions before a button asks anew. */
  signal?: AbortSignal;
  /** The pattern, if it is not the server's default. */
  mode?: "session" | "hybrid" | "jwt";
  /** Of the `AuthError` with the code `sign_in_unfinished`: the passkey is the second step of that sign-in. */
  token?: string;
}

/** Whether no service accepts what was revoked any more. */
export interface Fence {
  fenced: boolean;
  /** Milliseconds until it is fenced at the latest; 0 when it is; `null` when that is unknown. */
  fenced_in_ms: number | null;
  /** How many sessions were ended. */
  ended?: number;
}

export interface Options {
  /** Further origins that get the access token, such as `https://api.example.com`. Each is exact. */
  origins?: string[];
}

/** A refusal of the server. A network that fails is a `TypeError`, as that of the browser's own `fetch`. */
export class AuthError extends Error {
  readonly name: "AuthError";
  /** The status of the answer. */
  readonly status: number;
  /** What the server refuses, such as `wrong_credentials`; `undefined` if the answer is not the server's. */
  readonly code?: string;
  /** The field that is wrong. */
  readonly field?: string;
  /** What the next step needs, if the code is `sign_in_unfinished`. */
  readonly token?: string;
  /** How that step can be taken: `totp`, `recovery_code`, `passkey`, or a step of the application. */
  readonly methods?: string[];
  /** Seconds to wait before another attempt. */
  readonly retryAfter?: number;
}

export interface Client {
  /** Who is signed in; `null`: no one; `undefined`: not known yet. The same object until something in it changes. */
  readonly user: User | null | undefined;
  /** Resolves once it is known who is signed in. It never rejects. */
  readonly ready: Promise<User | null>;
  /**
   * Call a function with each change of `user`, in this tab or another, and at once if the user is known.
   * Returns a function that ends this.
   */
  onChange(listener: (user: User | null) => void): () => void;
  /**
   * Sign in. Where a second factor is asked for, this throws an error with the code `sign_in_unfinished`, and a second
   * call with its `token` and a `method` continues.
   * @throws {AuthError} the server refuses: `wrong_credentials`, `rate_limited` (see `retryAfter`) and others
   * @throws {TypeError} the server is out of reach
   */
  signIn(given: Credentials | NextStep): Promise<User>;
  /**
   * Go to another log-in, such as `google`, by the name that it has on the server. The browser leaves this page, and
   * comes back to `next` with a cookie: `user` is known there. A second factor is asked for on a page of the server.
   * @throws {AuthError} the server refuses: `not_found` for another name, `issuer_unavailable` and others
   */
  signInWith(issuer: string, way?: Way): Promise<void>;
  /**
   * Mail a code for signing in to an address, where the server offers this. The answer does not say whether the address
   * has an account.
   * @throws {AuthError} the server refuses: `refused` where it does not offer this, `rate_limited` and others
   */
  code(email: string): Promise<CodeSent>;
  /**
   * Sign in by a mailed code.
   * @throws {AuthError} the server refuses: `wrong_credentials`, `invalid_token` (ask for another code) and others
   */
  code(given: MailedCode): Promise<User>;
  /**
   * Sign in by a passkey, without a name; or with a `token`, take the second step by one. Call it from a click, or with `mediation: "conditional"` when the page opens.
   * @throws {AuthError} the server refuses: `wrong_credentials`, `invalid_token` (five minutes passed) and others
   * @throws {DOMException} the person has cancelled (`NotAllowedError`), or `signal` ended the request (`AbortError`)
   */
  passkey(options?: PasskeyOptions): Promise<User>;
  /**
   * Sign this browser out, in every tab.
   * @throws {AuthError} the server cannot do it now; the user is still signed in
   * @throws {TypeError} the server is out of reach; the user is still signed in
   */
  signOut(): Promise<Fence>;
  /**
   * Do what the browser's `fetch` does, with the proof of who is signed in if the URL is of this page's origin, of the
   * server's, or of one of `origins`. A response 401 is tried once more, with a new proof.
   */
  fetch(input: RequestInfo | URL, init?: RequestInit): Promise<Response>;
}

/**
 * Create the client, once for each page.
 * @param url where the server is, with its base path: `https://auth.example.com` or `/id`. If it is left out, it is
 *   where this module came from if that is the server, and else the origin of the page.
 */
export function createClient(url?: string | URL, options?: Options): Client;
