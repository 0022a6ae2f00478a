// What the changelog says of a version, for its release on GitHub; refuses a tag that is not the package's version, and
// what npm would refuse: node scripts/release-notes.ts v1.2.3 owner/name > notes.md

import { readFileSync } from "node:fs";

interface Manifest {
  readonly version: string;
  readonly repository?: { readonly url?: string };
}

try {
  const [tag = "", repository = ""] = process.argv.slice(2);
  const { version, repository: stated } = JSON.parse(
    readFileSync("package.json", "utf8"),
  ) as Manifest;
  if (tag !== `v${version}`)
    throw new Error(`the tag is "${tag}", package.json has ${version}: expected v${version}`);
  // npm compares it with where the workflow ran, and publishes with provenance only where both are the same.
  const url = stated?.url ?? "none";
  if (!url.replace(/\.git$/, "").endsWith(`/${repository}`))
    throw new Error(`package.json's repository is ${url}, expected that of ${repository}`);
  const sections = readFileSync("CHANGELOG.md", "utf8").split(/^## /m);
  const section = sections.find((text) => /^\[?([\w.-]+)/.exec(text)?.[1] === version);
  if (!section) throw new Error(`CHANGELOG.md has no section "## ${version} - YYYY-MM-DD"`);
  process.stdout.write(`${section.slice(section.indexOf("\n")).trim()}\n`);
} catch (error) {
  process.stderr.write(`error: ${(error as Error).message}\n`);
  process.exitCode = 1;
}
