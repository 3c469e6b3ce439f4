obj.spec.rollback = nil
return obj
