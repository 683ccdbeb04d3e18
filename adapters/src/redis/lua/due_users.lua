-- A page of the users that are due, the most overdue first; with the first page, how many are due in all.

local _, due_by, after_at, after_name, limit = unpack(arguments)
local due = key(1, DUE)
local total = call('ZCOUNT', due, '-inf', due_by)
local from = 0
-- By bytes; the operators of Lua go by the server's locale.
local function is_later(left, right)
    for i = 1, min(#left, #right) do
        local difference = string.byte(left, i) - string.byte(right, i)
        if difference ~= 0 then
            return difference > 0
        end
    end
    return #left > #right
end

if after_at then
    local at = string.format('%.0f', after_at)
    -- The first rank behind (after_at, after_name), found by halves: whoever stood there may be gone by now.
    from = call('ZCOUNT', due, '-inf', '(' .. at)
    local behind = call('ZCOUNT', due, '-inf', at)
    while from < behind do
        local middle = floor((from + behind) / 2)
        if is_later(call('ZRANGE', due, middle, middle)[1], after_name) then
            behind = middle
        else
            from = middle + 1
        end
    end
end
local last = min(from + limit, total) - 1
local users = last >= from and call('ZRANGE', due, from, last, 'WITHSCORES') or {}
for i = 2, #users, 2 do
    users[i] = tonumber(users[i])
end
return pack(now, 'ok', users, not after_at and total)
