-- Enqueues jobs of one source: names, times, ticks and lanes side by side. With a checkpoint (schedule, token, progress)
-- the progress of that fan-out is saved in the same step.

local SYNC_NOW_INTERVAL_MS = 60000

local _, names, run_ats, nominals, priorities, checkpoint = unpack(arguments)
if not source(1) then
    return pack({ now, 'unknown' })
end
if checkpoint then
    local schedule, token, progress = unpack(checkpoint)
    if not is_live(load_one(0, schedule), token) then
        return pack({ now, 'lost' })
    end
    if call('HGET', key(0, CURSORS), schedule) == progress then
        -- The reply to this very page was lost: its jobs may have run since.
        return answer('ok', 0, 0, 0)
    end
    set_cursor(0, schedule, progress)
end
local added, coalesced, refused = 0, 0, 0
local known = load(1, names)
for i = 1, #names do
    local name = names[i]
    local row = known[name]
    if not row or row[PARKED] ~= 0 then
        refused = refused + 1
    else
        local priority, started = priorities[i], row[STARTED]
        if started and max(0, now - started) < SYNC_NOW_INTERVAL_MS then
            priority = 0
        end
        if want(row, run_ats[i], priority, nominals[i], priority == 1) then
            added = added + 1
        else
            coalesced = coalesced + 1
        end
        touch(1, name, row)
    end
end
flush()
return answer('ok', added, coalesced, refused)
