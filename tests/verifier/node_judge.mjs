// Reads a key set, then one token a line, and writes what jose says of each under the options of the example.
import { createInterface } from "node:readline";
import { createLocalJWKSet } from "jose";
import { Refused, verify } from "./verify.js";

let keys;
for await (const line of createInterface({ input: process.stdin })) {
  if (keys === undefined) {
    keys = createLocalJWKSet(JSON.parse(line));
    continue;
  }
  try {
    await verify(JSON.parse(line), keys);
    console.log("accepted");
  } catch (error) {
    console.log(error instanceof Refused ? "refused" : `failed: ${error.cause ?? error}`);
  }
}
