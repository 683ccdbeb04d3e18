-- Moves a schedule from one tick to the next, exactly once over all processes: the first to say so wins.

local _, name, revision, after, at, missed, fire = unpack(arguments)
if at <= after or at > now then
    return pack(now, 'invalid')
end
local row = schedule(name)
if not row then
    return pack(now, 'already', false)
end
if row[REVISION] ~= revision or row[LAST_TICK_AT] ~= after then
    return pack(now, 'already', row)
end
row[LAST_TICK_AT] = at
row[MISSED] = row[MISSED] + missed
if fire then
    row[FIRED] = row[FIRED] + 1
    local job = fan_out_row(name)
    make_wishes()
    want(job, now, 0, at, false)
    touch(job)
end
set_schedule(name, row)
flush()
return answer('ok', row)
