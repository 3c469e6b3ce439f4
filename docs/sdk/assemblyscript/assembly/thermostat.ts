// Heats below `target` and stops half a degree above it; counts how often it switched.
import { Code, Device, State, env, log } from "./scriptops";

export function main(): i32 {
  const thermometer = new Device("thermometer"), heater = new Device("heater");
  const temperature = thermometer.number("temperature");
  if (isNaN(temperature)) {
    log("no temperature yet");
    return Code.Done;
  }
  const wanted = env("target");
  const target = wanted === null ? 20.0 : parseFloat(wanted);
  const isOn = heater.bool("power");
  const limit = isOn ? target + 0.5 : target;
  const shouldBeOn = temperature < limit;
  if (shouldBeOn == isOn) return Code.Done;

  log(shouldBeOn ? "heating" : "warm enough");
  let refused = heater.setBool("power", shouldBeOn);
  if (refused) return refused;
  const switched = State.get("switched");
  const times = switched === null ? 0 : I32.parseInt(switched);
  refused = State.set("switched", (times + 1).toString());
  if (refused) return refused;
  return heater.commit();
}
