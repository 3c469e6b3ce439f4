//! Heats below `target` and stops half a degree above it; counts how often it switched.

use scriptops::{env, log, rule, state, Device, Level, Result};

fn thermostat() -> Result {
    let (thermometer, heater) = (Device("thermometer"), Device("heater"));
    let temperature = match thermometer.number("temperature") {
        Some(temperature) => temperature,
        None => {
            log(Level::Info, "no temperature yet");
            return Ok(());
        }
    };
    let target = env("target").map_or(20.0, |text| text.parse().expect("target is a number"));
    let is_on = heater.bool("power") == Some(true);
    let should_be_on = temperature < if is_on { target + 0.5 } else { target };
    if should_be_on == is_on {
        return Ok(());
    }
    log(Level::Info, if should_be_on { "heating" } else { "warm enough" });
    heater.set("power", should_be_on)?;
    let switched = state::get("switched").and_then(|json| json.parse().ok()).unwrap_or(0);
    state::set("switched", &format!("{}", switched + 1))?;
    heater.commit()
}

rule!(thermostat);
