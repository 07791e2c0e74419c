// A service in Node beside `dutchdoor serve`: npm ci && ISSUER=https://auth.example.com npm start
import { createServer } from "node:http";
import { Refused, Unavailable, verify, verifyNow } from "./verify.js";

async function answer(request) {
  const [scheme, token] = (request.headers.authorization ?? "").split(" ");
  if (scheme.toLowerCase() !== "bearer" || !token) return [401, {}, { "www-authenticate": "Bearer" }];
  // What changes something asks the server. Reading goes by the keys alone, and notices a log-out when the token expires.
  const claims = request.method === "GET" ? await verify(token) : await verifyNow(token);
  return [200, { hello: claims.sub, roles: claims.roles }, {}];
}

const server = createServer(async (request, response) => {
  let said;
  try {
    said = await answer(request);
  } catch (error) {
    if (error instanceof Refused) said = [401, {}, { "www-authenticate": 'Bearer error="invalid_token"' }];
    else if (error instanceof Unavailable) said = [503, {}, { "retry-after": "1" }];
    else said = [500, {}, {}];
  }
  const [status, body, headers] = said;
  response.writeHead(status, { "content-type": "application/json", "cache-control": "no-store", ...headers });
  response.end(JSON.stringify(body));
});

server.listen(Number(process.env.PORT ?? 3000), "127.0.0.1", () => console.log(`http://127.0.0.1:${server.address().port}`));
