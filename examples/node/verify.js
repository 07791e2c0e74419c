// Checks dutchdoor's access tokens: alone by the public keys, or by asking the server, which knows what is revoked.
import { createRemoteJWKSet, errors, jwtVerify } from "jose";

const issuer = process.env.ISSUER ?? "http://localhost:8000"; // exactly as tokens spell it
const key = process.env.DUTCHDOOR_VERIFIER_KEY; // `dutchdoor verifier add orders` prints it
const published = createRemoteJWKSet(new URL(`${issuer}/.well-known/jwks.json`), {
  timeoutDuration: 3000,
  cooldownDuration: 10_000, // any client can invent a key id, and each makes jose look, once in this time
});
const expected = {
  issuer,
  audience: process.env.AUDIENCE ?? issuer,
  algorithms: ["ES256"], // what `dutchdoor serve --alg` says, and no other
  typ: "at+jwt",
  clockTolerance: 10,
  maxTokenAge: "1h",
  requiredClaims: ["sub", "exp", "jti", "client_id"],
};

export class Refused extends Error {} // answer 401
export class Unavailable extends Error {} // answer 503, never 401: an outage must not sign people out

const NO_KEYS = ["ERR_JWKS_TIMEOUT", "ERR_JWKS_INVALID", "ERR_JOSE_GENERIC"];

export async function verify(token, keys = published) {
  try {
    const { payload } = await jwtVerify(token, keys, expected);
    if ("cnf" in payload) throw new Refused("bound to a key, which is not checked here");
    if (typeof payload.sub !== "string" || !Array.isArray(payload.roles)) throw new Refused("not of dutchdoor's form");
    return payload;
  } catch (error) {
    if (error instanceof errors.JOSEError && !NO_KEYS.includes(error.code)) throw new Refused(error.code);
    throw error instanceof Refused ? error : new Unavailable("no keys", { cause: error });
  }
}

export async function verifyNow(token) {
  const claims = await verify(token); // nothing malformed, and nothing for another service, is sent on
  let answer;
  try {
    answer = await fetch(`${issuer}/oauth2/introspect`, {
      method: "POST",
      headers: key ? { authorization: `Bearer ${key}` } : {},
      body: new URLSearchParams({ token }),
      redirect: "error", // the key and the token go to this server alone
      signal: AbortSignal.timeout(3000),
    });
    if (!answer.ok) throw new Unavailable(`introspection answered ${answer.status}`);
    if ((await answer.json()).active !== true) throw new Refused("revoked");
    return claims;
  } catch (error) {
    throw error instanceof Refused ? error : new Unavailable("no answer", { cause: error });
  }
}
