local is_suspended = obj.spec.suspend == true
local rollout = (obj.status or {}).rollout or {}
local is_under_way = (rollout.candidate or "") ~= ""

return {
  suspend = { disabled = is_suspended, iconClass = "fa fa-fw fa-pause" },
  resume = { disabled = not is_suspended, iconClass = "fa fa-fw fa-play" },
  rollback = {
    disabled = not is_under_way and #(rollout.versions or {}) < 2,
    iconClass = "fa fa-fw fa-history",
  },
}
