// Before each page: the refresh cookie of the browser gives an access token, and jose checks it here.
import { createRemoteJWKSet, jwtVerify } from "jose";
import { NextResponse } from "next/server";

const auth = process.env.AUTH_URL ?? "http://localhost:8000"; // also the issuer, exactly as tokens spell it
const keys = createRemoteJWKSet(new URL(`${auth}/.well-known/jwks.json`));
const expected = { issuer: auth, audience: auth, algorithms: ["ES256"], typ: "at+jwt", requiredClaims: ["sub", "exp"] };
const held = new Map(); // access tokens by refresh cookie: a page asks the server once in ten minutes, not each time

async function refreshed(cookie) {
  const asked = await fetch(`${auth}/auth/csrf`, { headers: { cookie } });
  if (!asked.ok) return { cookies: [] }; // the session has ended
  const headers = { cookie, "x-csrf-token": (await asked.json()).csrf_token };
  const answer = await fetch(`${auth}/auth/refresh`, { method: "POST", headers });
  if (!answer.ok) return { cookies: [] };
  const { access_token, expires_in } = await answer.json();
  return { token: access_token, until: Date.now() + (expires_in - 30) * 1000, cookies: answer.headers.getSetCookie() };
}

export async function middleware(request) {
  const [cookie] = /(?:__Host-)?dd_refresh=[\w.-]+/.exec(request.headers.get("cookie") ?? "") ?? [];
  let found = held.get(cookie);
  let cookies = [];
  if (cookie && !(found?.until > Date.now())) {
    found = await refreshed(cookie);
    cookies = found.cookies;
    if (held.size > 10_000) held.clear();
    const next = cookies.find((line) => line.includes("dd_refresh="))?.split(";")[0] ?? cookie;
    if (found.token) held.set(next, found);
  }
  const headers = new Headers(request.headers);
  headers.delete("x-user"); // a client must not name itself
  if (found?.token) headers.set("x-user", (await jwtVerify(found.token, keys, expected)).payload.sub);
  const response = NextResponse.next({ request: { headers } });
  for (const line of cookies) response.headers.append("set-cookie", line);
  return response;
}

export const config = { matcher: "/((?!_next|favicon).*)", runtime: "nodejs" };
