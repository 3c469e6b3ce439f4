// The small classes, without which hardly anything goes.
import { AbortController, AbortSignal, abortSignalOf } from "./abort.js";
import { atob, btoa } from "./base64.js";
import { cloneable, structuredClone } from "./clone.js";
import { TextDecoder, TextEncoder } from "./encoding.js";
import { CustomEvent, Event, EventTarget } from "./events.js";
import { DOMException } from "./exceptions.js";
import { defineProperty } from "./webidl.js";

const refused = [AbortController, Event, EventTarget, TextDecoder, TextEncoder];
cloneable((value) => refused.some((Class) => value instanceof Class));

export const shared = {
  AbortController, AbortSignal, CustomEvent, DOMException, Event, EventTarget, TextDecoder,
  TextEncoder, atob, btoa, structuredClone,
};
for (const [name, each] of Object.entries({ atob, btoa, structuredClone })) {
  defineProperty(each, "name", { value: name, configurable: true });
}

// An event has an accessor of its own, which all events share.
export const also = [new TextDecoder(), new TextEncoder(), new Event("sample")];
export { abortSignalOf as abortSignal };
