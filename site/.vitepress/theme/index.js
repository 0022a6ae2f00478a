// VitePress' own theme with the system's fonts: a page loads nothing but its own files.
export { default } from "vitepress/theme-without-fonts";
