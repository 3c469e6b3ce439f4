-- The same for Script and ScriptRepository: Argo CD reads one file for each kind, and none from another.
-- It runs this without the libraries string and math.
local SUSPENDED = {
  Script = "Deployed; runs are suspended",
  ScriptRepository = "Nothing is applied; what runs goes on running",
}
local health = { status = "Progressing", message = "Waiting for scriptops" }

if obj.spec ~= nil and obj.spec.suspend == true then
  health.status = "Suspended"
  health.message = SUSPENDED[obj.kind]
  return health
end

-- What was said of another generation is not about this one.
if obj.status == nil or obj.status.observedGeneration ~= obj.metadata.generation then
  return health
end

local ready, stalled, reconciling
for _, condition in ipairs(obj.status.conditions or {}) do
  if condition.type == "Ready" then
    ready = condition
  elseif condition.type == "Stalled" and condition.status == "True" then
    stalled = condition
  elseif condition.type == "Reconciling" and condition.status == "True" then
    reconciling = condition
  end
end

-- Degraded ends a sync at once, so it is kept for what a person has to mend.
if stalled ~= nil then
  health.status = "Degraded"
  health.message = stalled.message
elseif reconciling ~= nil then
  if reconciling.reason == "RolloutPaused" then
    health.status = "Suspended"
  end
  health.message = reconciling.message
elseif ready ~= nil and ready.status == "True" then
  health.status = "Healthy"
  health.message = ready.message
elseif ready ~= nil then
  health.message = ready.message
end
return health
