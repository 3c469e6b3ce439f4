local is_suspended = obj.spec.suspend == true
local is_rolled_back = obj.spec.rollback ~= nil
local history = (obj.status or {}).history or {}
local is_elsewhere = obj.spec.apply == "None"

local can_roll_back = false
for index = 2, #history do
  local entry = history[index]
  if entry.outcome == "Applied" and (entry.rolledBackTo or "") == "" and entry.revision ~= history[1].revision then
    can_roll_back = true
  end
end

return {
  sync = { disabled = is_suspended, iconClass = "fa fa-fw fa-sync" },
  suspend = { disabled = is_suspended, iconClass = "fa fa-fw fa-pause" },
  resume = { disabled = not is_suspended, iconClass = "fa fa-fw fa-play" },
  rollback = {
    disabled = is_elsewhere or is_rolled_back or not can_roll_back,
    iconClass = "fa fa-fw fa-history",
  },
  unroll = { disabled = not is_rolled_back, iconClass = "fa fa-fw fa-forward", displayName = "End rollback" },
}
