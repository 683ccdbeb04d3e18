-- Forgets a schedule and its fan-out; an active one loses its lease.

local name = arguments[2]
if call('HDEL', SCHEDULES, name) == 1 then
    changed = true
end
if load(0, { name })[name] then
    remove_row(0, name)
end
flush()
return answer('ok')
