-- Enqueues jobs of one source. With a checkpoint (schedule, token, progress; no schedule: none) the progress of that
-- fan-out is saved in the same step. The arguments are the checkpoint, the count of jobs, and then all their names, all
-- their times, all their ticks and all their lanes.

local SYNC_NOW_INTERVAL_MS = 60000

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
local lists = plain_of(1)
-- The rows that are changed as texts, as they stand now.
local known, texts_of = rows[1], {}

-- A job for a user who has none: the row's text goes on with the job's (see plain.lua).
local function want_plain(name, raw, run_at, nominal, priority)
    local _, due_at, parked, _, started, _, _, _, gate, _, _, has_job = decode(raw)
    if has_job ~= nil or parked ~= 0 then
        return false
    end
    if started and max(0, now - started) < SYNC_NOW_INTERVAL_MS then
        priority = 0
    end
    local after = raw .. pack(run_at - due_at, priority, nominal and nominal - due_at)
    with(lists[PLAIN_SET], name, after)
    texts_of[name] = after
    local ready_at = gate and max(gate, run_at) or run_at
    if priority == 0 then
        with(lists[PLAIN_LANE_SET], text(ready_at), name)
        lists[PLAIN_FIRST] = min(lists[PLAIN_FIRST], ready_at)
    else
        with(lists[PLAIN_NOW_SET], text(ready_at), name)
        lists[PLAIN_FIRST_NOW] = min(lists[PLAIN_FIRST_NOW], ready_at)
    end
    changed = true
    return true
end

local raws = call('HMGET', key(1, ROWS), unpack(arguments, NAMES_BEGIN + 1, run_ats_begin))
for i = 1, count do
    local name, raw = arguments[NAMES_BEGIN + i], raws[i]
    local run_at, nominal = arguments[run_ats_begin + i], arguments[nominals_begin + i]
    local row, is_done = known[name], false
    if texts_of[name] and row == nil then
        -- Twice in one command: what came first is written before the other joins it.
        raw = texts_of[name]
        flush()
        lists = plain_of(1)
    end
    if row == nil and raw then
        is_done = want_plain(name, raw, run_at, nominal, arguments[priorities_begin + i])
        if not is_done then
            row = row_of(raw)
            known[name] = row
        end
    end
    if is_done then
        added = added + 1
    elseif not row or row[PARKED] ~= 0 then
        refused = refused + 1
    else
        make_wishes()
        local priority, started = arguments[priorities_begin + i], row[STARTED]
        if started and max(0, now - started) < SYNC_NOW_INTERVAL_MS then
            priority = 0
        end
        if want(row, run_at, priority, nominal, priority == 1) then
            added = added + 1
        else
            coalesced = coalesced + 1
        end
        touch(row)
    end
end
flush()
return answer('ok', added, coalesced, refused)
