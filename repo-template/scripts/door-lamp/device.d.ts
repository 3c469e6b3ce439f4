// Written by `scriptops build` from the manifests of this repository: do not edit.

interface ReadableDevices {
  readonly "door": { "open": boolean; };
}

interface WritableDevices {
  readonly "lamp": { "brightness": number; "power": boolean; };
}

interface Environment {
  readonly "brightness": string;
}
