// How many bytes a browser client adds to a page: npm ci --ignore-scripts && node sizes.mjs
//
// Each is what its documentation shows to sign in with a password, bundled and minified by esbuild, then compressed.
import { readFileSync } from "node:fs";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

const OURS = new URL("../../src/dutchdoor/client/browser/client.js", import.meta.url).pathname;
const programs = {
  dutchdoor: `import { createClient } from ${JSON.stringify(OURS)}; window.auth = createClient();`,
  "better-auth": `import { createAuthClient } from "better-auth/client"; window.auth = createAuthClient();`,
  "oidc-client-ts": `import { UserManager } from "oidc-client-ts";
    window.auth = new UserManager({ authority: "/", client_id: "shop", redirect_uri: "/" });`,
  "@supabase/auth-js": `import { AuthClient } from "@supabase/auth-js"; window.auth = new AuthClient({ url: "/auth" });`,
  "supertokens-web-js": `import SuperTokens from "supertokens-web-js";
    import Session from "supertokens-web-js/recipe/session";
    import EmailPassword from "supertokens-web-js/recipe/emailpassword";
    SuperTokens.init({
      appInfo: { apiDomain: "http://localhost", appName: "shop" }, recipeList: [Session.init(), EmailPassword.init()],
    });
    window.auth = [Session, EmailPassword];`,
};

const { dependencies } = JSON.parse(readFileSync(new URL("package.json", import.meta.url)));
console.log("| client | version | minified | compressed |\n|---|---|---:|---:|");
for (const [name, contents] of Object.entries(programs)) {
  const options = { bundle: true, minify: true, format: "esm", write: false, platform: "browser", logLevel: "error" };
  const made = await build({ ...options, stdin: { contents, resolveDir: import.meta.dirname } });
  const [{ contents: bytes }] = made.outputFiles;
  const kilo = (count) => `${(count / 1000).toFixed(1)} kB`;
  console.log(`| ${name} | ${dependencies[name] ?? ""} | ${kilo(bytes.length)} | ${kilo(gzipSync(bytes, { level: 9 }).length)} |`);
}
