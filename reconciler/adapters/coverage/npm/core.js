// The part of @babel/core that istanbul's visitor uses.
export { default as template } from "@babel/template";
