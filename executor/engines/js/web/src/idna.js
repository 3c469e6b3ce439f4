// Stands in for tr46 in whatwg-url, which is in a file of its own, because few URLs need it. The URL Standard says that plain ASCII without `xn--` is mapped by lower-casing it.
let loaded;
function tr46() {
  loaded ??= load("idna");
  return loaded;
}

const PLAIN = /^[\0-\x7f]*$/;
const PUNYCODE = /(?:^|\.)xn--/i;

export function toASCII(domain, options) {
  if (!options.verifyDNSLength && !options.checkHyphens && PLAIN.test(domain) && !PUNYCODE.test(domain)) {
    return domain.toLowerCase();
  }
  return tr46().toASCII(domain, options);
}

export const toUnicode = (domain, options) => tr46().toUnicode(domain, options);
