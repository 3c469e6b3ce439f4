// Heats below `low`, stops above `high`, and in between goes on with what it did.
// A run remembers nothing of earlier ones: what the heater does now is asked of the heater.
async function main() {
  const temperature = Device.getDeviceStatus("thermometer", "temperature");
  if (temperature === undefined) return; // has not reported yet

  const low = Number(Deno.env["low"]);
  const high = Number(Deno.env["high"]);
  const heating = Device.getDeviceStatus("heater", "power") ?? false;
  const heat = temperature < low ? true : temperature > high ? false : heating;

  if (heat !== heating) {
    console.log(`${temperature} degrees: heater ${heat ? "on" : "off"}`);
  }
  Device.setDeviceStatus("heater", "power", heat);
  await Device.commitDevice("heater");
}
