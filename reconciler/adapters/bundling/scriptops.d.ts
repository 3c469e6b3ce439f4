// What a rule finds in its world, for TypeScript and editors. Written by `scriptops build`: do not edit.
//
// ECMAScript itself comes from TypeScript ("lib": ["esnext"]); devices and environment of one rule from
// the device.d.ts beside it. What is not here does not exist in a rule.

/** A value of a device's property. */
type DeviceValue = number | boolean | string;

/** What JSON can express. */
type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json };

/** Names of readSelector and the properties of their devices; a device.d.ts fills this in. */
interface ReadableDevices {}

/** Names of writeSelector and the properties of their devices; a device.d.ts fills this in. */
interface WritableDevices {}

/** Names in spec.env; a device.d.ts fills this in. */
interface Environment {}

declare const Device: {
  /** Names of readSelector. */
  listReadableDevices(): (keyof ReadableDevices)[];
  /** Names of writeSelector. */
  listWritableDevices(): (keyof WritableDevices)[];
  /** The value last reported, typed by the DeviceModel; undefined when none is known. */
  getDeviceStatus<
    Name extends keyof ReadableDevices,
    Property extends keyof ReadableDevices[Name],
  >(name: Name, property: Property): ReadableDevices[Name][Property] | undefined;
  /** Stages a value; `commitDevice` sends it. */
  setDeviceStatus<
    Name extends keyof WritableDevices,
    Property extends keyof WritableDevices[Name],
  >(name: Name, property: Property, value: WritableDevices[Name][Property]): void;
  /**
   * Sends what is staged for a device. `force` writes values that are desired already, too.
   *
   * With qos 0 it leaves with the run. With 1 or 2 it is written now, and the promise says how far it got:
   * until its edge has it (1), or until the device reports it (2); `timeout` in milliseconds at most.
   */
  commitDevice(
    name: keyof WritableDevices,
    qos?: 0,
    options?: { force?: boolean; timeout?: number },
  ): Promise<void>;
  commitDevice(
    name: keyof WritableDevices,
    qos: 1 | 2,
    options?: { force?: boolean; timeout?: number },
  ): Promise<Committed>;
  commitDevice(
    name: keyof WritableDevices,
    qos: 0 | 1 | 2,
    options?: { force?: boolean; timeout?: number },
  ): Promise<Committed | undefined>;
};

/** How far a commit got; less than was asked for has a `code`, and a `message` that says what is missing. */
interface Committed {
  readonly reached: 0 | 1 | 2;
  readonly code?: "NotConverged";
  readonly message?: string;
}

/** What the Script remembers from run to run, if the run succeeds. */
declare const State: {
  /** A copy of the value last set; undefined when there is none. */
  get<Value = any>(key: string): Value | undefined;
  set(key: string, value: Json): void;
  /** Forgets the key; whether it was there. */
  delete(key: string): boolean;
  keys(): string[];
};

declare namespace Deno {
  const env: Environment & { readonly [name: string]: string | undefined } & {
    get(name: string): string | undefined;
    has(name: string): boolean;
    toObject(): { [name: string]: string };
  };
}

/** Lines of the run's log. */
declare const console: {
  debug(...values: unknown[]): void;
  log(...values: unknown[]): void;
  info(...values: unknown[]): void;
  warn(...values: unknown[]): void;
  error(...values: unknown[]): void;
};

// Time. The clock of a run stands still but for what its timers wait.

declare function setTimeout<Given extends unknown[]>(
  task: (...given: Given) => void, delay?: number, ...given: Given
): number;
declare function setInterval<Given extends unknown[]>(
  task: (...given: Given) => void, delay?: number, ...given: Given
): number;
declare function clearTimeout(timer: number | undefined): void;
declare function clearInterval(timer: number | undefined): void;
declare function queueMicrotask(task: () => void): void;
declare const performance: { now(): number; readonly timeOrigin: number };

/** Makes the run fail with this error when it has ended. */
declare function reportError(error: unknown): void;

// The Web.

declare const self: typeof globalThis;
declare const navigator: { readonly userAgent: string; readonly language: string };
declare function structuredClone<Value>(value: Value): Value;
declare function atob(data: string): string;
declare function btoa(data: string): string;

type BufferSource = ArrayBufferView<ArrayBufferLike> | ArrayBuffer;

declare class DOMException extends Error {
  constructor(message?: string, name?: string);
  readonly code: number;
}

interface EventInit { bubbles?: boolean; cancelable?: boolean; composed?: boolean }

declare class Event {
  constructor(type: string, init?: EventInit);
  readonly type: string;
  readonly target: EventTarget | null;
  readonly currentTarget: EventTarget | null;
  readonly bubbles: boolean;
  readonly cancelable: boolean;
  readonly defaultPrevented: boolean;
  readonly timeStamp: number;
  preventDefault(): void;
  stopPropagation(): void;
  stopImmediatePropagation(): void;
}

declare class CustomEvent<Detail = unknown> extends Event {
  constructor(type: string, init?: EventInit & { detail?: Detail });
  readonly detail: Detail;
}

type EventListener = ((event: Event) => void) | { handleEvent(event: Event): void };

declare class EventTarget {
  addEventListener(
    type: string,
    listener: EventListener | null,
    options?: boolean | { once?: boolean; capture?: boolean; passive?: boolean; signal?: AbortSignal },
  ): void;
  removeEventListener(
    type: string, listener: EventListener | null, options?: boolean | { capture?: boolean },
  ): void;
  dispatchEvent(event: Event): boolean;
}

declare class AbortController {
  readonly signal: AbortSignal;
  abort(reason?: any): void;
}

declare class AbortSignal extends EventTarget {
  private constructor();
  static abort(reason?: any): AbortSignal;
  static timeout(milliseconds: number): AbortSignal;
  static any(signals: Iterable<AbortSignal>): AbortSignal;
  readonly aborted: boolean;
  readonly reason: any;
  onabort: ((event: Event) => void) | null;
  throwIfAborted(): void;
}

declare class TextEncoder {
  readonly encoding: "utf-8";
  encode(input?: string): Uint8Array<ArrayBuffer>;
  encodeInto(source: string, destination: Uint8Array): { read: number; written: number };
}

declare class TextDecoder {
  constructor(label?: string, options?: { fatal?: boolean; ignoreBOM?: boolean });
  readonly encoding: string;
  readonly fatal: boolean;
  readonly ignoreBOM: boolean;
  decode(input?: BufferSource, options?: { stream?: boolean }): string;
}

declare class URL {
  constructor(url: string | URL, base?: string | URL);
  static canParse(url: string | URL, base?: string | URL): boolean;
  static parse(url: string | URL, base?: string | URL): URL | null;
  href: string;
  readonly origin: string;
  protocol: string;
  username: string;
  password: string;
  host: string;
  hostname: string;
  port: string;
  pathname: string;
  search: string;
  readonly searchParams: URLSearchParams;
  hash: string;
  toString(): string;
  toJSON(): string;
}

declare class URLSearchParams implements Iterable<[string, string]> {
  constructor(init?: string | URLSearchParams | Iterable<readonly [string, string]> | Record<string, string>);
  readonly size: number;
  append(name: string, value: string): void;
  delete(name: string, value?: string): void;
  get(name: string): string | null;
  getAll(name: string): string[];
  has(name: string, value?: string): boolean;
  set(name: string, value: string): void;
  sort(): void;
  forEach(callback: (value: string, name: string, parent: URLSearchParams) => void, self?: unknown): void;
  entries(): IteratorObject<[string, string]>;
  keys(): IteratorObject<string>;
  values(): IteratorObject<string>;
  [Symbol.iterator](): IteratorObject<[string, string]>;
  toString(): string;
}

type BlobPart = BufferSource | Blob | string;

declare class Blob {
  constructor(parts?: Iterable<BlobPart>, options?: { type?: string; endings?: "transparent" | "native" });
  readonly size: number;
  readonly type: string;
  slice(start?: number, end?: number, type?: string): Blob;
  arrayBuffer(): Promise<ArrayBuffer>;
  bytes(): Promise<Uint8Array<ArrayBuffer>>;
  text(): Promise<string>;
}

declare class File extends Blob {
  constructor(parts: Iterable<BlobPart>, name: string, options?: { type?: string; lastModified?: number });
  readonly name: string;
  readonly lastModified: number;
}

type FormDataEntryValue = File | string;

declare class FormData implements Iterable<[string, FormDataEntryValue]> {
  append(name: string, value: string | Blob, filename?: string): void;
  delete(name: string): void;
  get(name: string): FormDataEntryValue | null;
  getAll(name: string): FormDataEntryValue[];
  has(name: string): boolean;
  set(name: string, value: string | Blob, filename?: string): void;
  forEach(callback: (value: FormDataEntryValue, name: string, parent: FormData) => void, self?: unknown): void;
  entries(): IteratorObject<[string, FormDataEntryValue]>;
  keys(): IteratorObject<string>;
  values(): IteratorObject<FormDataEntryValue>;
  [Symbol.iterator](): IteratorObject<[string, FormDataEntryValue]>;
}

type HeadersInit = Headers | Iterable<readonly [string, string]> | Record<string, string>;

declare class Headers implements Iterable<[string, string]> {
  constructor(init?: HeadersInit);
  append(name: string, value: string): void;
  delete(name: string): void;
  get(name: string): string | null;
  getSetCookie(): string[];
  has(name: string): boolean;
  set(name: string, value: string): void;
  forEach(callback: (value: string, name: string, parent: Headers) => void, self?: unknown): void;
  entries(): IteratorObject<[string, string]>;
  keys(): IteratorObject<string>;
  values(): IteratorObject<string>;
  [Symbol.iterator](): IteratorObject<[string, string]>;
}

type BodyInit = BufferSource | Blob | FormData | URLSearchParams | string;

interface Body {
  readonly bodyUsed: boolean;
  arrayBuffer(): Promise<ArrayBuffer>;
  blob(): Promise<Blob>;
  bytes(): Promise<Uint8Array<ArrayBuffer>>;
  formData(): Promise<FormData>;
  json(): Promise<any>;
  text(): Promise<string>;
}

interface RequestInit {
  method?: string;
  headers?: HeadersInit;
  body?: BodyInit | null;
  redirect?: "follow" | "error" | "manual";
  signal?: AbortSignal | null;
}

interface Request extends Body {}
declare class Request {
  constructor(input: string | URL | Request, init?: RequestInit);
  readonly method: string;
  readonly url: string;
  readonly headers: Headers;
  readonly redirect: "follow" | "error" | "manual";
  readonly signal: AbortSignal;
  clone(): Request;
}

interface Response extends Body {}
declare class Response {
  constructor(body?: BodyInit | null, init?: { status?: number; statusText?: string; headers?: HeadersInit });
  static error(): Response;
  static json(data: unknown, init?: { status?: number; statusText?: string; headers?: HeadersInit }): Response;
  static redirect(url: string | URL, status?: number): Response;
  readonly headers: Headers;
  readonly ok: boolean;
  readonly redirected: boolean;
  readonly status: number;
  readonly statusText: string;
  readonly type: string;
  readonly url: string;
  clone(): Response;
}

/** Only to places that spec.network.allow names. */
declare function fetch(input: string | URL | Request, init?: RequestInit): Promise<Response>;

type KeyUsage = "encrypt" | "decrypt" | "sign" | "verify" | "deriveKey" | "deriveBits" | "wrapKey" | "unwrapKey";
type AlgorithmIdentifier = string | { name: string; [parameter: string]: unknown };

declare class CryptoKey {
  private constructor();
  readonly type: "secret" | "private" | "public";
  readonly extractable: boolean;
  readonly algorithm: { name: string; [parameter: string]: unknown };
  readonly usages: KeyUsage[];
}

declare class SubtleCrypto {
  private constructor();
  digest(algorithm: AlgorithmIdentifier, data: BufferSource): Promise<ArrayBuffer>;
  sign(algorithm: AlgorithmIdentifier, key: CryptoKey, data: BufferSource): Promise<ArrayBuffer>;
  verify(
    algorithm: AlgorithmIdentifier, key: CryptoKey, signature: BufferSource, data: BufferSource,
  ): Promise<boolean>;
  encrypt(algorithm: AlgorithmIdentifier, key: CryptoKey, data: BufferSource): Promise<ArrayBuffer>;
  decrypt(algorithm: AlgorithmIdentifier, key: CryptoKey, data: BufferSource): Promise<ArrayBuffer>;
  generateKey(
    algorithm: AlgorithmIdentifier, extractable: boolean, usages: Iterable<KeyUsage>,
  ): Promise<CryptoKey>;
  importKey(
    format: "raw" | "jwk",
    data: any,
    algorithm: AlgorithmIdentifier,
    extractable: boolean,
    usages: Iterable<KeyUsage>,
  ): Promise<CryptoKey>;
  exportKey(format: "raw", key: CryptoKey): Promise<ArrayBuffer>;
  exportKey(format: "jwk", key: CryptoKey): Promise<any>;
}

/** Random values follow from the run, so that it can be replayed; they are no secrets. */
declare const crypto: {
  readonly subtle: SubtleCrypto;
  getRandomValues<View extends ArrayBufferView>(view: View): View;
  randomUUID(): `${string}-${string}-${string}-${string}-${string}`;
};
