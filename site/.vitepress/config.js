// The site's navigation: pages by group, under the titles that they have. A page that no group names is an error.
import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { defineConfig } from "vitepress";

const pages = fileURLToPath(new URL("../pages/", import.meta.url));
const pagesIn = (folder) =>
  readdirSync(`${pages}${folder}`)
    .filter((name) => name.endsWith(".md") && name !== "index.md")
    .map((name) => name.slice(0, -".md".length));

const groups = {
  Start: ["quickstart", "tutorial", "install", "troubleshooting"],
  Use: [
    "commands",
    "recipes",
    "data",
    "models",
    "devices",
    "quantised",
    "cluster",
    "browser",
    "hub",
    "python",
    "offline",
    "library",
    "ci",
  ],
  "What is measured": ["tasks", "compare", "report", "run-folder"],
  Method: ["method", "temperatures", "results", "scaling", "reliability"],
  Reference: [
    ...pagesIn("reference").map((name) => `reference/${name}`),
    "environment",
    "exit-codes",
    "api/index",
  ],
  Project: ["changelog", "contributing", "security", "citation"],
};

const named = Object.values(groups).flat();
const lost = pagesIn("").filter((page) => !named.includes(page));
if (lost.length > 0) throw new Error(`no group of .vitepress/config.js has ${lost.join(", ")}`);

/** Up to a colon, behind which some say more. */
const titleOf = (page) => /^# ([^:\n]*)/m.exec(readFileSync(`${pages}${page}.md`, "utf8"))[1];

export default defineConfig({
  title: "ssa",
  description: "Fine-tune pretrained language models with Selective Self-Attention temperatures",
  srcDir: "pages",
  // Of a site that is not at the root of its host: SITE_BASE=/ssa/ npm run docs
  base: process.env.SITE_BASE ?? "/",
  // No picture of a tab: browsers would ask for one.
  head: [["link", { rel: "icon", href: "data:," }]],
  // The index of the search is one.
  vite: { build: { chunkSizeWarningLimit: 2000 } },
  themeConfig: {
    search: { provider: "local" },
    outline: [2, 3],
    sidebar: Object.entries(groups).map(([text, items]) => ({
      text,
      collapsed: text === "Reference",
      items: items.map((page) => ({ text: titleOf(page), link: `/${page.replace(/index$/, "")}` })),
    })),
  },
});
