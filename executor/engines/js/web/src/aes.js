// The arithmetic of AES-GCM, for crypto.subtle.
export { gcm } from "@noble/ciphers/aes.js";
