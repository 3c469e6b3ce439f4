/* Heats below `target` and stops half a degree above it; counts how often it switched. */
#include "scriptops.h"

SCRIPTOPS_MAIN int run(void) {
    double temperature = device_number("thermometer", "temperature");
    if (temperature != temperature) {
        log_info("no temperature yet");
        return 0;
    }
    double target = env_number("target", 20);
    bool is_on = device_bool("heater", "power") == 1;
    bool should_be_on = is_on ? temperature < target + 0.5 : temperature < target;
    if (should_be_on == is_on) return 0;

    log_info(should_be_on ? "heating" : "warm enough");
    int refused = device_set_bool("heater", "power", should_be_on);
    if (refused) return refused;
    refused = state_set_integer("switched", state_number("switched", 0) + 1);
    if (refused) return refused;
    return device_commit("heater");
}
