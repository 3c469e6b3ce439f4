// Written by `scriptops build` from the manifests of this repository: do not edit.

interface ReadableDevices {
  readonly "heater": { "power": boolean; };
  readonly "thermometer": { "temperature": number; };
}

interface WritableDevices {
  readonly "heater": { "power": boolean; };
}

interface Environment {
  readonly "high": string;
  readonly "low": string;
}
