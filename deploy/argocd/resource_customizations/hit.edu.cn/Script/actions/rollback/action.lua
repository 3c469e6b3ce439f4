-- To the version before, as `scriptops rollout undo`.
local os = require("os")
if obj.metadata.annotations == nil then
  obj.metadata.annotations = {}
end
obj.metadata.annotations["rollout.hit.edu.cn/requested"] = "undo argocd-" .. os.date("!%Y-%m-%dT%XZ")
return obj
