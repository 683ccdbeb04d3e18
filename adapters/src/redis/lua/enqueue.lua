-- Enqueues jobs of one source. With a checkpoint (schedule, token, progress; no schedule: none) the progress of that
-- fan-out is saved in the same step. The arguments are the checkpoint, the count of jobs, and then all their names, all
-- their times, all their ticks and all their lanes.

local SYNC_NOW_INTERVAL_MS = 60000

make_wishes()
local schedule, token, progress, count = arguments[2], arguments[3], arguments[4], arguments[5]
local NAMES_BEGIN = 5
local run_ats_begin = NAMES_BEGIN + count
local nominals_begin = run_ats_begin + count
local priorities_begin = nominals_begin + count
if call('HEXISTS', SOURCES, source_names[1]) == 0 then
    return pack(now, 'unknown')
end
if schedule then
    if not is_live(load(0, { schedule })[schedule], token) then
        return pack(now, 'lost')
    end
    if call('HGET', key(0, CURSORS), schedule) == progress then
        -- The reply to this very page was lost: its jobs may have run since.
        return answer('ok', 0, 0, 0)
    end
    set_cursor(0, schedule, progress)
end
local added, coalesced, refused = 0, 0, 0
local known = load(1, { unpack(arguments, NAMES_BEGIN + 1, run_ats_begin) })
for i = 1, count do
    local name = arguments[NAMES_BEGIN + i]
    local row = known[name]
    if not row or row[PARKED] ~= 0 then
        refused = refused + 1
    else
        local priority, started = arguments[priorities_begin + i], row[STARTED]
        if started and max(0, now - started) < SYNC_NOW_INTERVAL_MS then
            priority = 0
        end
        if want(row, arguments[run_ats_begin + i], priority, arguments[nominals_begin + i], priority == 1) then
            added = added + 1
        else
            coalesced = coalesced + 1
        end
        touch(row)
    end
end
flush()
return answer('ok', added, coalesced, refused)
