// What the isolate takes from the bundle, by group: each is made when its first name is touched.
// `shared` are what runs share; `also` must be frozen with it; the rest makes what belongs to a run.
export const group = {
  base: () => require("./base.js"),
  url: () => require("./url.js"),
  web: () => require("./web.js"),
  crypto: () => require("./crypto.js"),
};
