// URL and URLSearchParams of whatwg-url, set up on a global of their own.
import { install as installURL } from "whatwg-url/lib/URL.js";
import { install as installSearchParams } from "whatwg-url/lib/URLSearchParams.js";
import { parseURL, serializeURL } from "whatwg-url/lib/url-state-machine.js";
import { implSymbol } from "whatwg-url/lib/utils.js";
import { cloneable } from "./clone.js";

const realm = { Array, BigInt, Number, Object, Promise, RangeError, String, SyntaxError, TypeError };
installURL(realm, ["Worker"]);
installSearchParams(realm, ["Worker"]);
const { URL, URLSearchParams } = realm;

export const isURL = (value) => URL.prototype.isPrototypeOf(value);
export const isURLSearchParams = (value) => URLSearchParams.prototype.isPrototypeOf(value);
export { parseURL, serializeURL, URL, URLSearchParams };
export const shared = { URL, URLSearchParams };
cloneable((value) => isURL(value) || isURLSearchParams(value));

// What scripts reach through the symbols of an instance.
const sample = new URL("http://sample/?a=b");
export const also = [
  Object.getPrototypeOf(sample[implSymbol]), Object.getPrototypeOf(sample.searchParams[implSymbol]),
  realm, Object.getPrototypeOf(sample.searchParams.entries()),
];
