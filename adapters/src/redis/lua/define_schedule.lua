-- Stores a new schedule, or changes one that still has the revision that the caller saw (0: none).

local SCHEDULES_MAX = 1000

local _, name, definition, seen = unpack(arguments)
if not source(1) then
    return pack(now, 'unknown')
end
local row = schedule(name)
if (row and row[REVISION] or 0) ~= seen then
    return pack(now, 'changed')
end
if row then
    row[DEFINITION], row[OF_SOURCE], row[REVISION] = definition, source_names[1], row[REVISION] + 1
else
    if call('HLEN', SCHEDULES) >= SCHEDULES_MAX then
        return pack(now, 'full')
    end
    row = { definition, source_names[1], 1, now, 0, 0 }
end
set_schedule(name, row)
calls_others = true
return answer('ok', row)
