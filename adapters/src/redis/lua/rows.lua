-- Users with their jobs, and fan-outs: one row each, read once, changed in memory, written back with every index that
-- follows from it. Nothing else writes rows or these indexes, so they cannot drift apart.

-- The fields of a row. A waiting job that is fresh ends at NOMINAL, one that is active at LEASE_MS: what is not needed
-- is not stored. Fan-outs use only FINISHED and what follows.
local ENROLLED, DUE_AT, PARKED, GRANT, STARTED, SUCCEEDED, OUTCOME, ERROR, GATE, STREAK, FINISHED =
    1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11
local RUN_AT, PRIORITY, NOMINAL, ATTEMPTS, STALLS, BACKING_OFF, HELD_UNTIL, JOB_ERROR =
    12, 13, 14, 15, 16, 17, 18, 19
local WORKER, TOKEN, EXPIRES, LEASE_MS, AGAIN_AT, AGAIN_PRIORITY, AGAIN_NOMINAL =
    20, 21, 22, 23, 24, 25, 26

local rows, before, touched = {}, {}, {}
local cursors_set, cursors_gone = {}, {}
local leases_of = {}
for block = 0, #source_names do
    rows[block], touched[block], cursors_set[block], cursors_gone[block] = {}, {}, {}, {}
end

-- The member that stands for a job among the leases.
local function lease_member(block, name)
    return (block == 0 and '' or source_names[block]) .. '\0' .. name
end

-- Where a row stands in the indexes: lane and when ready, due, last success, lease, held.
local function places(row)
    local priority, ready_at, expires = false, false, false
    local run_at = row[RUN_AT]
    if run_at then
        if row[WORKER] then
            expires = row[EXPIRES]
        else
            priority = row[PRIORITY]
            ready_at = run_at
            local gate, held = row[GATE], row[HELD_UNTIL]
            if gate and gate > ready_at then
                ready_at = gate
            end
            if held and held > ready_at then
                ready_at = held
            end
        end
    end
    local due, success = false, false
    if row[PARKED] == 0 then
        due, success = row[DUE_AT], row[SUCCEEDED]
    end
    return {
        priority, ready_at, due, success, expires,
        row[WORKER] or false, row[TOKEN] or false, row[HELD_UNTIL] or false, row[SUCCEEDED],
    }
end

-- Drops what stands behind `field`. A row is as long as it must be, without holes: pack takes a list of them.
local function cut(row, field)
    for last = #row, field + 1, -1 do
        row[last] = nil
    end
end

-- Gives a job room for what an attempt leaves behind.
local function widen(row)
    if row[JOB_ERROR] == nil then
        row[ATTEMPTS] = 0
        row[STALLS] = 0
        row[BACKING_OFF] = false
        row[HELD_UNTIL] = false
        row[JOB_ERROR] = false
    end
end

local NOWHERE = { false, false, false, false, false, false, false, false, true }

local function decode_row(raw)
    local row = { decode(raw) }
    if row[RUN_AT] then
        -- Stored as distances from the due time: small numbers are short.
        row[RUN_AT] = row[RUN_AT] + row[DUE_AT]
        if row[NOMINAL] then
            row[NOMINAL] = row[NOMINAL] + row[DUE_AT]
        end
    end
    return row
end

local function encode_row(row)
    local run_at, nominal = row[RUN_AT], row[NOMINAL]
    if not run_at then
        return pack(unpack(row))
    end
    if not row[WORKER] and row[JOB_ERROR] == false and row[ATTEMPTS] == 0 and row[STALLS] == 0
        and not row[BACKING_OFF] and not row[HELD_UNTIL] then
        cut(row, NOMINAL)
    end
    local due_at = row[DUE_AT]
    row[RUN_AT] = run_at - due_at
    row[NOMINAL] = nominal and nominal - due_at
    local raw = pack(unpack(row))
    row[RUN_AT], row[NOMINAL] = run_at, nominal
    return raw
end

-- Reads the rows of `names`; those that are not there become `false`.
local function load(block, names)
    local known = rows[block]
    local wanted, count = {}, 0
    for i = 1, #names do
        local name = names[i]
        if known[name] == nil then
            known[name] = false
            count = count + 1
            wanted[count] = name
        end
    end
    if count == 0 then
        return known
    end
    local raws = call('HMGET', key(block, ROWS), unpack(wanted))
    for i = 1, count do
        if raws[i] then
            local row = decode_row(raws[i])
            known[wanted[i]] = row
            before[row] = places(row)
        end
    end
    return known
end

-- Reads the rows of many jobs of any blocks; each job is a list, with its block and its name at these places.
local function load_all(jobs, block_at, name_at)
    local names_of = {}
    for i = 1, #jobs do
        local block = jobs[i][block_at]
        local names = names_of[block] or {}
        names_of[block] = names
        names[#names + 1] = jobs[i][name_at]
    end
    for block, names in pairs(names_of) do
        load(block, names)
    end
end

local function load_one(block, name)
    return load(block, { name })[name]
end

local function touch(block, name, row)
    touched[block][name] = row
    changed = true
end

local function set_cursor(block, name, text)
    cursors_set[block][name] = text
    cursors_gone[block][name] = nil
    changed = true
end

local function drop_cursor(block, name)
    cursors_gone[block][name] = true
    cursors_set[block][name] = nil
end

-- Takes the row out, with all that belongs to it.
local function remove_row(block, name)
    local row = rows[block][name]
    rows[block][name] = false
    touched[block][name] = { gone = row }
    drop_cursor(block, name)
    changed = true
end

local function tokens_of(worker)
    local tokens = leases_of[worker]
    if not tokens then
        local raw = call('HGET', WORKERS, worker)
        tokens = { list = raw and decode(raw) or {}, gone = false, changed = false }
        leases_of[worker] = tokens
    end
    return tokens
end

local function flush_workers()
    for worker, tokens in pairs(leases_of) do
        if tokens.changed then
            local list = tokens.list
            if tokens.gone then
                local kept = {}
                for i = 1, #list do
                    if not tokens.gone[list[i]] then
                        kept[#kept + 1] = list[i]
                    end
                end
                list = kept
            end
            if #list == 0 then
                call('HDEL', WORKERS, worker)
            else
                call('HSET', WORKERS, worker, pack(list))
            end
            tokens.list, tokens.gone, tokens.changed = list, false, false
        end
    end
end

local function call_with(command, name, list)
    if list[1] then
        call(command, name, unpack(list))
    end
end

-- Writes the touched rows of a block back, and whatever follows from them.
local function flush_block(block)
    if next(touched[block]) then
        local set, gone, named, unnamed = {}, {}, {}, {}
        local due_set, due_gone, success_set, success_gone = {}, {}, {}, {}
        local lane_set, lane_gone, now_set, now_gone = {}, {}, {}, {}
        local lease_set, lease_gone, held_set, held_gone = {}, {}, {}, {}
        local never = 0
        local first, first_now = huge, huge
        for name, row in pairs(touched[block]) do
            local old, new
            if row.gone ~= nil then
                old, new = before[row.gone] or NOWHERE, NOWHERE
                before[row.gone] = nil
                gone[#gone + 1] = name
                unnamed[#unnamed + 1] = name
            else
                old, new = before[row], places(row)
                if not old then
                    old = NOWHERE
                    named[#named + 1] = 0
                    named[#named + 1] = name
                end
                before[row] = new
                set[#set + 1] = name
                set[#set + 1] = encode_row(row)
            end
            if old[1] ~= new[1] or old[2] ~= new[2] then
                if new[1] == 0 then
                    lane_set[#lane_set + 1] = text(new[2])
                    lane_set[#lane_set + 1] = name
                    first = min(first, new[2])
                elseif new[1] == 1 then
                    now_set[#now_set + 1] = text(new[2])
                    now_set[#now_set + 1] = name
                    first_now = min(first_now, new[2])
                end
                if old[1] == 0 and new[1] ~= 0 then
                    lane_gone[#lane_gone + 1] = name
                elseif old[1] == 1 and new[1] ~= 1 then
                    now_gone[#now_gone + 1] = name
                end
            end
            if old[3] ~= new[3] then
                if new[3] then
                    due_set[#due_set + 1] = text(new[3])
                    due_set[#due_set + 1] = name
                else
                    due_gone[#due_gone + 1] = name
                end
            end
            if old[4] ~= new[4] then
                if new[4] then
                    success_set[#success_set + 1] = text(new[4])
                    success_set[#success_set + 1] = name
                else
                    success_gone[#success_gone + 1] = name
                end
            end
            if old[5] ~= new[5] then
                if new[5] then
                    lease_set[#lease_set + 1] = text(new[5])
                    lease_set[#lease_set + 1] = lease_member(block, name)
                else
                    lease_gone[#lease_gone + 1] = lease_member(block, name)
                end
            end
            if old[6] ~= new[6] or old[7] ~= new[7] then
                if old[6] then
                    local tokens = tokens_of(old[6])
                    tokens.gone = tokens.gone or {}
                    tokens.gone[old[7]] = true
                    tokens.changed = true
                end
                if new[6] then
                    local tokens = tokens_of(new[6])
                    tokens.list[#tokens.list + 1] = new[7]
                    tokens.changed = true
                end
            end
            if old[8] ~= new[8] then
                if new[8] then
                    held_set[#held_set + 1] = text(new[8])
                    held_set[#held_set + 1] = name
                else
                    held_gone[#held_gone + 1] = name
                end
            end
            if old[9] ~= new[9] then
                never = never + (new[9] and 0 or 1) - (old[9] and 0 or 1)
            end
        end
        touched[block] = {}
        call_with('HSET', key(block, ROWS), set)
        call_with('HDEL', key(block, ROWS), gone)
        call_with('ZADD', key(block, LANE), lane_set)
        call_with('ZREM', key(block, LANE), lane_gone)
        call_with('ZADD', LEASES, lease_set)
        call_with('ZREM', LEASES, lease_gone)
        if first < huge and tonumber(call('ZRANGE', key(block, LANE), '0', '0', 'WITHSCORES')[2]) >= first then
            calls_others = true
        end
        if block > 0 then
            call_with('ZADD', key(block, NAMES), named)
            call_with('ZREM', key(block, NAMES), unnamed)
            call_with('ZADD', key(block, DUE), due_set)
            call_with('ZREM', key(block, DUE), due_gone)
            call_with('ZADD', key(block, SUCCESS), success_set)
            call_with('ZREM', key(block, SUCCESS), success_gone)
            call_with('ZADD', key(block, LANE_NOW), now_set)
            call_with('ZREM', key(block, LANE_NOW), now_gone)
            call_with('ZADD', key(block, HELD), held_set)
            call_with('ZREM', key(block, HELD), held_gone)
            if never ~= 0 then
                call('HINCRBY', NEVER_SYNCED, source_names[block], never)
            end
            if first_now < huge and tonumber(call('ZRANGE', key(block, LANE_NOW), '0', '0', 'WITHSCORES')[2]) >= first_now then
                calls_others = true
            end
        end
    end
    if next(cursors_set[block]) then
        local set = {}
        for name, text in pairs(cursors_set[block]) do
            set[#set + 1] = name
            set[#set + 1] = text
        end
        cursors_set[block] = {}
        call('HSET', key(block, CURSORS), unpack(set))
    end
    if next(cursors_gone[block]) then
        local gone = {}
        for name in pairs(cursors_gone[block]) do
            gone[#gone + 1] = name
        end
        cursors_gone[block] = {}
        call('HDEL', key(block, CURSORS), unpack(gone))
    end
end

local function flush()
    for block = 0, #source_names do
        flush_block(block)
    end
    flush_workers()
end

-- Whether the lease is on the job, under this token, and has not expired.
local function is_live(row, token)
    return row and row[WORKER] and row[TOKEN] == token and row[EXPIRES] > now
end

local function drop_job(block, name, row)
    cut(row, FINISHED)
    if block == 0 then
        drop_cursor(block, name)
    end
end

-- Both wishes in one: the earlier time, the higher priority, the newest tick.
local function join(at, priority, nominal, at2, priority2, nominal2)
    return min(at, at2), max(priority, priority2), nominal and nominal2 and max(nominal, nominal2) or nominal or nominal2
end

-- A new job, or one more wish on the outstanding one; whether it is new. `hurries`: may shorten a wait that an ended
-- attempt has set.
local function want(row, at, priority, nominal, hurries)
    local run_at = row[RUN_AT]
    if not run_at then
        row[RUN_AT], row[PRIORITY], row[NOMINAL] = at, priority, nominal
        return true
    end
    if row[WORKER] then
        if row[AGAIN_AT] then
            at, priority, nominal = join(row[AGAIN_AT], row[AGAIN_PRIORITY], row[AGAIN_NOMINAL], at, priority, nominal)
        end
        row[AGAIN_AT], row[AGAIN_PRIORITY], row[AGAIN_NOMINAL] = at, priority, nominal
        return false
    end
    row[RUN_AT], row[PRIORITY], row[NOMINAL] = join(run_at, row[PRIORITY], row[NOMINAL], at, priority, nominal)
    if row[BACKING_OFF] and not hurries then
        row[RUN_AT] = run_at
    end
    return false
end

-- The wish that came while the job was active joins it, now that the lease is gone.
local function take_again(row)
    if row[AGAIN_AT] then
        row[RUN_AT], row[PRIORITY], row[NOMINAL] =
            join(row[RUN_AT], row[PRIORITY], row[NOMINAL], row[AGAIN_AT], row[AGAIN_PRIORITY], row[AGAIN_NOMINAL])
    end
    cut(row, JOB_ERROR)
end
