-- Enqueues jobs of one source. With a checkpoint (schedule, token, progress; no schedule: none) the progress of that
-- fan-out is saved in the same step. The arguments are the checkpoint, the count of jobs, whether what becomes of each is
-- to be told, and then all their names, all their times, all their ticks and all their lanes.
--
-- Nearly all users have no job yet: then their row's text goes on with the job's, and no row is made of it (plain.lua). So
-- this stands before all that makes rows: who enqueues one job pays for nothing else. Jobs that join one are left to
-- enqueue.lua.

local SYNC_NOW_INTERVAL_MS = 60000
local IS_ADDED, IS_COALESCED, IS_REFUSED = '0', '1', '2'
local NAMES_BEGIN = 6

local schedule, count, tells_each = arguments[2], arguments[5], arguments[6]
local run_ats_begin = NAMES_BEGIN + count
local nominals_begin = run_ats_begin + count
local priorities_begin = nominals_begin + count
if schedule then
    if call('HEXISTS', SOURCES, source_names[1]) == 0 then
        return pack(now, 'unknown')
    end
    local raw, of_worker, lease_token, expires = call('HGET', key(0, ROWS), schedule), false, false, 0
    if raw then
        of_worker, lease_token, expires = select(WORKER, decode(raw))
    end
    if not of_worker or lease_token ~= arguments[3] or expires <= now then
        return pack(now, 'lost')
    end
    if call('HGET', key(0, CURSORS), schedule) == arguments[4] then
        -- The reply to this very page was lost: its jobs may have run since.
        return answer('ok', 0, 0, 0, false)
    end
    call('HSET', key(0, CURSORS), schedule, arguments[4])
    changed = true
end

local added, refused, others = 0, 0, false
local outcomes, is_met = tells_each and {}, count > 1 and {}
local set, lane_set, now_set, set_last, lane_last, now_last = {}, {}, {}, 0, 0, 0
local first, first_now = huge, huge
local raws = count > 0 and call('HMGET', key(1, ROWS), unpack(arguments, NAMES_BEGIN + 1, run_ats_begin))
for i = 1, count do
    local name, raw, outcome = arguments[NAMES_BEGIN + i], raws[i], IS_REFUSED
    if raw then
        local _, due_at, parked, _, started, _, _, _, gate, _, _, has_job = decode(raw)
        if parked ~= 0 then
            refused = refused + 1
        elseif has_job ~= nil or is_met and is_met[name] then
            others = others or {}
            others[#others + 1] = i
            outcome = IS_COALESCED
        else
            local run_at, nominal = arguments[run_ats_begin + i], arguments[nominals_begin + i]
            local priority, ready_at = arguments[priorities_begin + i], run_at
            if started and max(0, now - started) < SYNC_NOW_INTERVAL_MS then
                priority = 0
            end
            if gate and gate > run_at then
                ready_at = gate
            end
            set[set_last + 1] = name
            set[set_last + 2] = raw .. pack(run_at - due_at, priority, nominal and nominal - due_at)
            set_last = set_last + 2
            if priority == 0 then
                lane_set[lane_last + 1] = text(ready_at)
                lane_set[lane_last + 2] = name
                lane_last = lane_last + 2
                first = min(first, ready_at)
            else
                now_set[now_last + 1] = text(ready_at)
                now_set[now_last + 2] = name
                now_last = now_last + 2
                first_now = min(first_now, ready_at)
            end
            if is_met then
                is_met[name] = true
            end
            added = added + 1
            outcome = IS_ADDED
        end
    else
        refused = refused + 1
    end
    if outcomes then
        outcomes[i] = outcome
    end
end
-- A source that is not known has no users.
if refused == count and not schedule and call('HEXISTS', SOURCES, source_names[1]) == 0 then
    return pack(now, 'unknown')
end

-- Whoever is idle must hear of a job that is the first there.
local function enter(lane, entries, earliest)
    call('ZADD', lane, unpack(entries))
    calls_others = calls_others or tonumber(call('ZRANGE', lane, '0', '0', 'WITHSCORES')[2]) >= earliest
end
if added > 0 then
    call('HSET', key(1, ROWS), unpack(set))
    if lane_last > 0 then
        enter(key(1, LANE), lane_set, first)
    end
    if now_last > 0 then
        enter(key(1, LANE_NOW), now_set, first_now)
    end
    -- Nothing else of the queue's own has changed, and many scripts share a millisecond.
    changed = changed or meta[CHANGED_AT] < now
end
if not others then
    return answer('ok', added, 0, refused, outcomes and table.concat(outcomes))
end
