-- To the newest revision that was applied as a whole, as `scriptops rollback` without a revision.
local history = obj.status.history
for index = 2, #history do
  local entry = history[index]
  local is_whole = entry.outcome == "Applied" and (entry.rolledBackTo or "") == ""
  if is_whole and entry.revision ~= history[1].revision then
    obj.spec.rollback = { revision = entry.revision, quarantined = history[1].revision }
    return obj
  end
end
error("no other revision was applied without problems")
