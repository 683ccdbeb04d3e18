-- What enqueue_plain.lua left: jobs of users who have one. They are taken in order, after the plain ones are written, so one
-- that came twice in a command joins what came first. Needs wishes.lua.

local coalesced, names = 0, {}
for i = 1, #others do
    names[i] = arguments[NAMES_BEGIN + others[i]]
end
local known = load(1, names)
make_wishes()
for i = 1, #others do
    local place, row = others[i], known[names[i]]
    local priority, started = arguments[priorities_begin + place], row[STARTED]
    if started and max(0, now - started) < SYNC_NOW_INTERVAL_MS then
        priority = 0
    end
    want(row, arguments[run_ats_begin + place], priority, arguments[nominals_begin + place], priority == 1)
    touch(row)
    coalesced = coalesced + 1
end
flush()
return answer('ok', added, coalesced, refused, outcomes and table.concat(outcomes))
