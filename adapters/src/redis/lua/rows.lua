-- Users with their jobs, and fan-outs: one row each, read once, changed in memory, written back with every index that
-- follows from it (flush.lua), so they cannot drift apart. What nearly all jobs do is done to the row's text, without a table, and
-- with its indexes by the same hand (plain.lua, enqueue_plain.lua).

-- The fields of a row. A waiting job that is fresh ends at NOMINAL, one that is active at LEASE_MS: what is not needed
-- is not stored. Fan-outs use only FINISHED and what follows.
local ENROLLED, DUE_AT, PARKED, GRANT, STARTED, SUCCEEDED, OUTCOME, ERROR, GATE, STREAK, FINISHED =
    1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11
local RUN_AT, PRIORITY, NOMINAL, ATTEMPTS, STALLS, BACKING_OFF, HELD_UNTIL, JOB_ERROR =
    12, 13, 14, 15, 16, 17, 18, 19
local WORKER, TOKEN, EXPIRES, LEASE_MS, AGAIN_AT, AGAIN_PRIORITY, AGAIN_NOMINAL =
    20, 21, 22, 23, 24, 25, 26

-- Not a field: where the row stood in the indexes when it was read, and whether it was touched since. A new row has none.
local BEFORE = 0
local WAS_TOUCHED, WAS_PRIORITY, WAS_READY_AT, WAS_DUE, WAS_SUCCESS = 1, 2, 3, 4, 5
local WAS_EXPIRES, WAS_WORKER, WAS_TOKEN, WAS_HELD, HAD_SUCCEEDED = 6, 7, 8, 9, 10

-- By block, then by name: what was read or made (`false`: not there), what was taken out; cursors to write (`false`: to
-- drop). By worker: the tokens that it holds. Those of a block are there once it was in use.
local rows, removed, cursors, tokens_by_worker = {}, {}, {}, {}

-- By block: what plain jobs add to the next flush (plain.lua), and by name the rows that it will write.
local plain, plain_raws = {}, {}
local PLAIN_SET, PLAIN_LANE_GONE, PLAIN_NOW_GONE, PLAIN_LEASE_SET, PLAIN_LEASE_GONE = 1, 2, 3, 4, 5
local PLAIN_DUE_SET, PLAIN_SUCCESS_SET, PLAIN_NEVER, PLAIN_CURSOR_SET = 6, 7, 8, 9

-- Where a row stands in the indexes: lane and when ready, due, last success, lease, its worker and token, held; and
-- whether there was a success at all.
local function places(row)
    local priority, ready_at, due, success = false, false, false, false
    local worker, run_at = row[WORKER] or false, row[RUN_AT]
    if run_at and not worker then
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
    if row[PARKED] == 0 then
        due, success = row[DUE_AT], row[SUCCEEDED]
    end
    return priority, ready_at, due, success, worker and row[EXPIRES], worker, worker and row[TOKEN],
        row[HELD_UNTIL] or false, row[SUCCEEDED]
end

-- Drops what stands behind `field`. A row is as long as it must be, without holes: pack takes a list of them.
local function cut(row, field)
    for last = #row, field + 1, -1 do
        row[last] = nil
    end
end

-- The row that is stored as `raw`.
local function row_of(raw)
    local row = { [BEFORE] = false, decode(raw) }
    local run_at = row[RUN_AT]
    if run_at then
        -- Stored as distances from the due time: small numbers are short.
        local due_at, nominal = row[DUE_AT], row[NOMINAL]
        row[RUN_AT] = run_at + due_at
        if nominal then
            row[NOMINAL] = nominal + due_at
        end
    end
    row[BEFORE] = { false, places(row) }
    return row
end

-- Reads the rows of `names`; those that are not there become `false`.
local function load(block, names)
    local known, wanted, count = rows[block], names, #names
    if not known then
        known = {}
        rows[block] = known
    else
        wanted, count = {}, 0
        for i = 1, #names do
            if known[names[i]] == nil then
                count = count + 1
                wanted[count] = names[i]
            end
        end
    end
    if count == 0 then
        return known
    end
    local raws, of_plain = call('HMGET', key(block, ROWS), unpack(wanted)), plain_raws[block]
    for i = 1, count do
        local raw = of_plain and of_plain[wanted[i]] or raws[i]
        known[wanted[i]] = raw and row_of(raw)
    end
    return known
end

-- The row has changed. One that is new needs no telling.
local function touch(row)
    local before = row[BEFORE]
    if before then
        before[WAS_TOUCHED] = true
    end
    changed = true
end

-- Whether the lease is on the job, under this token, and has not expired.
local function is_live(row, token)
    return row and row[WORKER] and row[TOKEN] == token and row[EXPIRES] > now
end

-- Sets the cursor, or drops it (`false`).
local function set_cursor(block, name, cursor)
    local of_block = cursors[block]
    if of_block then
        of_block[name] = cursor
    else
        cursors[block] = { [name] = cursor }
    end
    changed = true
end
