// The lamp shines while the door is open.
async function main() {
  const open = Device.getDeviceStatus("door", "open");
  if (open === undefined) return; // has not reported yet

  console.log(`door ${open ? "open" : "closed"}: lamp ${open ? "on" : "off"}`);
  Device.setDeviceStatus("lamp", "power", open);
  Device.setDeviceStatus("lamp", "brightness", open ? Number(Deno.env["brightness"]) : 0);
  await Device.commitDevice("lamp");
}
