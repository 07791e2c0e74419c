// Unpack the browser of @sparticuz/chromium into the folder TMPDIR, with its libraries and its font, so that a machine
// without any of Chromium's packages starts it. The package itself leaves the libraries out unless it runs in a lambda.
import { chmodSync, writeFileSync } from "node:fs"
import { inflate } from "@sparticuz/chromium"

const folder = process.env.TMPDIR
const parts = ["chromium", "fonts.tar", "swiftshader.tar", "al2023.tar"]
await Promise.all(parts.map(part => inflate(`node_modules/@sparticuz/chromium/bin/${part}.br`)))

// The package's own list of font folders names those of a lambda. The machine's fonts come first where it has any.
writeFileSync(`${folder}/fonts/fonts.conf`, `<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig>
  <include ignore_missing="yes">/etc/fonts/fonts.conf</include>
  <dir>${folder}/fonts</dir>
  <cachedir>${folder}/fonts/cache</cachedir>
</fontconfig>
`)
writeFileSync(`${folder}/run`, `#!/bin/sh
export LD_LIBRARY_PATH="${folder}/al2023/lib" FONTCONFIG_FILE="${folder}/fonts/fonts.conf"
exec "${folder}/chromium" "$@"
`)
chmodSync(`${folder}/run`, 0o755)
