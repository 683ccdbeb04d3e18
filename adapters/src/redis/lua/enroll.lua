-- Users begin to be synced. Answers the places of those that are new.

local _, names, due_at = unpack(arguments)
if not source(1) then
    return pack(now, 'unknown')
end
local known, new = load(1, names), {}
for i = 1, #names do
    local name = names[i]
    if not known[name] then
        local row = { now, due_at, 0, false, false, false, false, false, false, 0, false }
        known[name] = row
        touch(row)
        new[#new + 1] = i - 1
    end
end
flush()
return answer('ok', new)
