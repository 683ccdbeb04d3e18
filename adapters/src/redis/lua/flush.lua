-- Writes rows back, and whatever follows from them: each index is compared with where the row stood before, and all
-- writes of one kind go in one call. Needs rows.lua.

-- The list with two more values: score and member, or field and value. It is made with the first two.
local function with(list, first, second)
    if not list then
        return { first, second }
    end
    local last = #list
    list[last + 1] = first
    list[last + 2] = second
    return list
end

-- The list with one more name.
local function and_name(list, name)
    if not list then
        return { name }
    end
    list[#list + 1] = name
    return list
end

-- The list, or nil if nothing is in it.
local function some(list)
    return list[1] and list
end

-- The lists of a block's next flush to which plain jobs add.
local function plain_of(block)
    local lists = plain[block]
    if not lists then
        lists = { {}, {}, {}, {}, {}, {}, {}, 0, {} }
        plain[block] = lists
        plain_raws[block] = {}
        rows[block] = rows[block] or {}
    end
    return lists
end

-- The row as it is stored.
local function encode(row)
    local run_at = row[RUN_AT]
    if not run_at then
        return pack(unpack(row))
    end
    if row[JOB_ERROR] == false and not row[WORKER] and row[ATTEMPTS] == 0 and row[STALLS] == 0
        and not row[BACKING_OFF] and not row[HELD_UNTIL] then
        cut(row, NOMINAL)
    end
    local due_at, nominal = row[DUE_AT], row[NOMINAL]
    row[RUN_AT] = run_at - due_at
    row[NOMINAL] = nominal and nominal - due_at
    local raw = pack(unpack(row))
    row[RUN_AT] = run_at
    row[NOMINAL] = nominal
    return raw
end

-- Tokens that workers gave back and got since the last flush, if any, by worker.
local tokens_gone, tokens_come = false, false

-- The tokens of the jobs that a worker holds, in the order in which it got them.
local function tokens_of(worker)
    local tokens = tokens_by_worker[worker]
    if not tokens then
        local raw = call('HGET', WORKERS, worker)
        tokens = raw and decode(raw) or {}
        tokens_by_worker[worker] = tokens
    end
    return tokens
end

local function flush_block(block, known)
    local set, named, lane_set, lane_gone, now_set, now_gone, lease_set, lease_gone
    local due_set, due_gone, success_set, success_gone, held_set, held_gone
    local never, first, first_now = 0, huge, huge
    local of_plain = plain[block]
    if of_plain then
        set, lane_gone, now_gone = some(of_plain[PLAIN_SET]), some(of_plain[PLAIN_LANE_GONE]), some(of_plain[PLAIN_NOW_GONE])
        lease_set, lease_gone = some(of_plain[PLAIN_LEASE_SET]), some(of_plain[PLAIN_LEASE_GONE])
        due_set, success_set = some(of_plain[PLAIN_DUE_SET]), some(of_plain[PLAIN_SUCCESS_SET])
        never = of_plain[PLAIN_NEVER]
        if of_plain[PLAIN_CURSOR_SET][1] then
            call('HSET', key(block, CURSORS), unpack(of_plain[PLAIN_CURSOR_SET]))
        end
        plain[block] = nil
        plain_raws[block] = nil
    end
    local member_of = (block == 0 and '' or source_names[block]) .. '\0'
    local gone = removed[block]
    if gone then
        for name, row in pairs(gone) do
            known[name] = row
        end
    end
    for name, row in pairs(known) do
        local was = row and row[BEFORE]
        if row and (not was or was[WAS_TOUCHED]) then
            local priority, ready_at, due, success, expires, worker, token, held, has_succeeded = places(row)
            if not was then
                was = { false, false, false, false, false, false, false, false, false, true }
                named = with(named, '0', name)
            end
            if gone and gone[name] then
                has_succeeded = true
            else
                set = with(set, name, encode(row))
            end
            local was_priority = was[WAS_PRIORITY]
            if was[WAS_READY_AT] ~= ready_at or was_priority ~= priority then
                if priority == 0 then
                    lane_set = with(lane_set, text(ready_at), name)
                    first = min(first, ready_at)
                elseif priority == 1 then
                    now_set = with(now_set, text(ready_at), name)
                    first_now = min(first_now, ready_at)
                end
                if was_priority and was_priority ~= priority then
                    if was_priority == 0 then
                        lane_gone = and_name(lane_gone, name)
                    else
                        now_gone = and_name(now_gone, name)
                    end
                end
            end
            if was[WAS_DUE] ~= due then
                if due then
                    due_set = with(due_set, text(due), name)
                else
                    due_gone = and_name(due_gone, name)
                end
            end
            if was[WAS_SUCCESS] ~= success then
                if success then
                    success_set = with(success_set, text(success), name)
                else
                    success_gone = and_name(success_gone, name)
                end
            end
            if was[WAS_EXPIRES] ~= expires then
                if expires then
                    lease_set = with(lease_set, text(expires), member_of .. name)
                else
                    lease_gone = and_name(lease_gone, member_of .. name)
                end
            end
            local had, had_token = was[WAS_WORKER], was[WAS_TOKEN]
            if had_token ~= token or had ~= worker then
                if had then
                    tokens_gone = tokens_gone or {}
                    local of_worker = tokens_gone[had]
                    if of_worker then
                        of_worker[had_token] = true
                    else
                        tokens_gone[had] = { [had_token] = true }
                    end
                end
                if worker then
                    tokens_come = tokens_come or {}
                    tokens_come[worker] = and_name(tokens_come[worker], token)
                end
            end
            if was[WAS_HELD] ~= held then
                if held then
                    held_set = with(held_set, text(held), name)
                else
                    held_gone = and_name(held_gone, name)
                end
            end
            if was[HAD_SUCCEEDED] ~= has_succeeded then
                never = never + (has_succeeded and 0 or 1) - (was[HAD_SUCCEEDED] and 0 or 1)
            end
            -- From here on this is where it stands.
            was[WAS_TOUCHED] = false
            was[WAS_PRIORITY] = priority
            was[WAS_READY_AT] = ready_at
            was[WAS_DUE] = due
            was[WAS_SUCCESS] = success
            was[WAS_EXPIRES] = expires
            was[WAS_WORKER] = worker
            was[WAS_TOKEN] = token
            was[WAS_HELD] = held
            was[HAD_SUCCEEDED] = has_succeeded
            row[BEFORE] = was
        end
    end

    if gone then
        local names = false
        for name in pairs(gone) do
            known[name] = false
            names = and_name(names, name)
        end
        removed[block] = nil
        call('HDEL', key(block, ROWS), unpack(names))
        if block > 0 then
            call('ZREM', key(block, NAMES), unpack(names))
        end
    end
    if set then
        call('HSET', key(block, ROWS), unpack(set))
    end
    if lane_gone then
        call('ZREM', key(block, LANE), unpack(lane_gone))
    end
    if lane_set then
        call('ZADD', key(block, LANE), unpack(lane_set))
    end
    if lane_set and not calls_others then
        -- Whoever is idle must hear of a job that is the first there.
        calls_others = tonumber(call('ZRANGE', key(block, LANE), '0', '0', 'WITHSCORES')[2]) >= first
    end
    -- What goes goes first: Redis looks through a small set from its beginning.
    if lease_gone then
        call('ZREM', LEASES, unpack(lease_gone))
    end
    if lease_set then
        call('ZADD', LEASES, unpack(lease_set))
    end
    if block == 0 then
        return
    end
    if now_gone then
        call('ZREM', key(block, LANE_NOW), unpack(now_gone))
    end
    if now_set then
        call('ZADD', key(block, LANE_NOW), unpack(now_set))
    end
    if now_set and not calls_others then
        -- Whoever is idle must hear of a job that is the first there.
        calls_others = tonumber(call('ZRANGE', key(block, LANE_NOW), '0', '0', 'WITHSCORES')[2]) >= first_now
    end
    if named then
        call('ZADD', key(block, NAMES), unpack(named))
    end
    if due_gone then
        call('ZREM', key(block, DUE), unpack(due_gone))
    end
    if due_set then
        call('ZADD', key(block, DUE), unpack(due_set))
    end
    if success_gone then
        call('ZREM', key(block, SUCCESS), unpack(success_gone))
    end
    if success_set then
        call('ZADD', key(block, SUCCESS), unpack(success_set))
    end
    if held_gone then
        call('ZREM', key(block, HELD), unpack(held_gone))
    end
    if held_set then
        call('ZADD', key(block, HELD), unpack(held_set))
    end
    if never ~= 0 then
        call('HINCRBY', NEVER_SYNCED, source_names[block], text(never))
    end
end

-- Writes all that was touched.
local function flush()
    for block, known in pairs(rows) do
        flush_block(block, known)
    end
    for block, of_block in pairs(cursors) do
        local set, gone
        for name, cursor in pairs(of_block) do
            if cursor then
                set = with(set, name, cursor)
            else
                gone = and_name(gone, name)
            end
        end
        cursors[block] = nil
        if set then
            call('HSET', key(block, CURSORS), unpack(set))
        end
        if gone then
            call('HDEL', key(block, CURSORS), unpack(gone))
        end
    end
    if not tokens_gone and not tokens_come then
        return
    end
    -- Each worker's tokens without those that are gone, and with those that came.
    local gone_of, come_of = tokens_gone or {}, tokens_come or {}
    for worker in pairs(come_of) do
        gone_of[worker] = gone_of[worker] or {}
    end
    for worker, gone in pairs(gone_of) do
        local held, kept, count = tokens_of(worker), {}, 0
        for i = 1, #held do
            local token = held[i]
            if not gone[token] then
                count = count + 1
                kept[count] = token
            end
        end
        local come = come_of[worker] or {}
        for i = 1, #come do
            kept[count + i] = come[i]
        end
        tokens_by_worker[worker] = kept
        if kept[1] then
            call('HSET', WORKERS, worker, pack(kept))
        else
            call('HDEL', WORKERS, worker)
        end
    end
    tokens_gone, tokens_come = false, false
end
