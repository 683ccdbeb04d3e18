-- A page of users by name, from after a name (`false`: from the first); or, with a limit of 0, that user alone.

local _, name, limit = unpack(arguments)
local names
if limit == 0 then
    names = { name }
else
    local from = name and '(' .. name or '-'
    names = call('ZRANGEBYLEX', key(1, NAMES), from, '+', 'LIMIT', 0, limit)
end
local found = {}
if names[1] then
    local known = load(1, names)
    local texts = call('HMGET', key(1, CURSORS), unpack(names))
    for i = 1, #names do
        local row = known[names[i]]
        if row then
            local state = {}
            for field = ENROLLED, STREAK do
                state[field] = row[field]
            end
            found[#found + 1] = { names[i], texts[i], state }
        end
    end
end
return pack(now, 'ok', found)
