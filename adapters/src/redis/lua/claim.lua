-- Who may start what now, and what comes back from workers that fell silent. Ends of attempts come first (finish.lua): a
-- worker tells how its jobs ended and asks for the next in one script.

local HELD_BATCH_MAX = 100
local EXPIRE_BATCH_MAX, ASKED_DROPPED_MAX = '100', '100'

if any_waits_again then
    -- What is claimed is looked for in the indexes: they must have what just came back. Else all is written at the end.
    flush()
end

local recovered, buried = 0, 0
local expired = call('ZRANGEBYSCORE', LEASES, '-inf', text(now), 'LIMIT', '0', EXPIRE_BATCH_MAX)
if expired[1] then
    make_recovery()
    recovered, buried = recovery.take_back(expired)
    flush()
end

for block = 1, #source_names do
    if source(block)[HAD_USER_LIMIT] then
        local until_at = text(meta[CHANGED_AT] - WOBBLE_MS)
        local over = call('ZRANGEBYSCORE', key(block, ASKED_UNTIL), '-inf', until_at, 'LIMIT', '0', ASKED_DROPPED_MAX)
        if over[1] then
            make_recovery()
            recovery.drop_asked(block, over)
        end
    end
end

-- Whether all of `tokens` are among `held`; both grow, or it may say no.
local function are_all_held(tokens)
    local place = 1
    for i = 1, #tokens do
        local token = tokens[i]
        while held[place] and held[place] < token do
            place = place + 1
        end
        if held[place] ~= token then
            return false
        end
    end
    return true
end

local tokens = tokens_of(worker)
if tokens[1] and not are_all_held(tokens) then
    -- What ended just now is not forgotten by the worker, it is done.
    local knows, is_any_unknown = {}, false
    for i = 1, #held do
        knows[held[i]] = true
    end
    for i = 1, #ended do
        knows[ended[i]] = true
    end
    for i = 1, #tokens do
        is_any_unknown = is_any_unknown or not knows[tokens[i]]
    end
    if is_any_unknown then
        make_recovery()
        recovery.give_again(knows)
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

local function next_token()
    local token = max(now * 1000, meta[LAST_TOKEN] + 1)
    meta[LAST_TOKEN] = token
    changed = true
    return token
end

local function start(block, name, row)
    local token, expires = next_token(), now + lease_ms
    widen(row)
    row[BACKING_OFF] = false
    row[HELD_UNTIL] = false
    row[WORKER] = worker
    row[TOKEN] = token
    row[EXPIRES] = expires
    row[LEASE_MS] = lease_ms
    touch(row)
    give(block, name, row)
end

-- Starts a fresh job; whether it was one (plain.lua).
local unhurt, leased
local function start_plain(block, name, raw)
    local _, due_at, _, _, _, _, _, _, _, _, _, _, priority, nominal, attempts = decode(raw)
    if attempts ~= nil then
        return false
    end
    if not unhurt then
        unhurt, leased = pack(0, 0, false, false, false, worker), pack(now + lease_ms, lease_ms)
        tokens_come = tokens_come or {}
        tokens_come[worker] = tokens_come[worker] or {}
    end
    local token, expires, lists = next_token(), now + lease_ms, plain_of(block)
    local begin, rest = sub(raw, 1, (unpack_limit(raw, BEFORE_STARTED, 0))), unpack_limit(raw, BEFORE_SUCCEEDED, 0) + 1
    local begun = begin .. packed_one(now) .. sub(raw, rest) .. unhurt .. pack(token) .. leased
    with(lists[PLAIN_SET], name, begun)
    with(lists[PLAIN_LEASE_SET], text(expires), source_names[block] .. '\0' .. name)
    and_name(lists[priority == 0 and PLAIN_LANE_GONE or PLAIN_NOW_GONE], name)
    and_name(tokens_come[worker], token)
    local last = #told
    told[last + 1] = block
    told[last + 2] = name
    told[last + 3] = token
    told[last + 4] = expires
    told[last + 5] = 1
    told[last + 6] = nominal and nominal + due_at
    told[last + LEASE_VALUES] = false
    return true
end

if fan_out_slots > 0 then
    local names = call('ZRANGEBYSCORE', key(0, LANE), '-inf', text(now), 'LIMIT', '0', text(fan_out_slots))
    if names[1] then
        local known = load(0, names)
        for i = 1, #names do
            start(0, names[i], known[names[i]])
        end
    end
end

local function start_syncs(block)
    local settings = source(block)
    if settings[PAUSED] or (settings[CLOSED_UNTIL] and settings[CLOSED_UNTIL] > now) then
        return
    end
    local free, put_aside, started = huge, 0, 0
    local unbound = is_free(block)
    if not unbound then
        make_flows()
        free = flows.room(block)
    end
    local skip_now, skip, is_more_there = 0, 0, true
    while is_more_there and slots > 0 and free > 0 and put_aside < HELD_BATCH_MAX do
        local wanted = min(slots, free)
        local names = call('ZRANGEBYSCORE', key(block, LANE_NOW), '-inf', text(now), 'LIMIT', text(skip_now), text(wanted))
        skip_now = skip_now + #names
        if #names < wanted then
            local more = call('ZRANGEBYSCORE', key(block, LANE), '-inf', text(now), 'LIMIT', text(skip), text(wanted - #names))
            skip = skip + #more
            if not names[1] then
                names = more
            else
                for i = 1, #more do
                    names[#names + 1] = more[i]
                end
            end
        end
        is_more_there = #names == wanted
        local raws, known, all_plain = {}, rows[block] or {}, not settings[USER_COUNT]
        rows[block] = known
        if names[1] then
            raws = call('HMGET', key(block, ROWS), unpack(names))
        end
        if settings[USER_COUNT] and names[1] then
            flows.load_asked(block, names)
        end
        for i = 1, #names do
            local name = names[i]
            local row, is_done = known[name], false
            if row == nil then
                is_done = all_plain and start_plain(block, name, raws[i])
                if is_done then
                    slots, free, started = slots - 1, free - 1, started + 1
                else
                    row = row_of(raws[i])
                    known[name] = row
                end
            end
            local opens = settings[USER_COUNT] and flows.user_opens_at(block, name, 1) or now
            if is_done then
                -- Nothing is left to do.
            elseif opens > now then
                if put_aside < HELD_BATCH_MAX then
                    widen(row)
                    row[HELD_UNTIL] = opens
                    touch(row)
                    put_aside = put_aside + 1
                end
            elseif put_aside < HELD_BATCH_MAX then
                if settings[USER_COUNT] then
                    flows.record_asked(block, name, 1)
                end
                row[STARTED] = now
                start(block, name, row)
                slots, free, started = slots - 1, free - 1, started + 1
            end
        end
    end
    if started > 0 and not unbound then
        flows.record_starts(block, started)
    end
end

for block = 1, #source_names do
    if slots <= 0 then
        break
    end
    start_syncs(block)
end
flush()
if flows then
    flows.flush()
end
flush_sources()
flush_history()

-- What the job knows goes along: the user's cursor, or the fan-out's progress.
local wanted
for at = leases_begin + 1, #told, LEASE_VALUES do
    wanted = wanted or {}
    wanted[told[at]] = and_name(wanted[told[at]], told[at + 1])
end
for block, names in pairs(wanted or {}) do
    local known, next_known = call('HMGET', key(block, CURSORS), unpack(names)), 1
    for at = leases_begin + 1, #told, LEASE_VALUES do
        if told[at] == block then
            told[at + LEASE_VALUES - 1] = known[next_known]
            next_known = next_known + 1
        end
    end
end

local function head(set)
    local first = call('ZRANGE', set, '0', '0', 'WITHSCORES')
    return first[2] and tonumber(first[2]) or huge
end

-- When the next claim can find something. What can be had at once is not looked for twice.
local next_at = huge
for block = 1, #source_names do
    local settings = source(block)
    if not settings[PAUSED] and next_at > now then
        local ready_at, opens = head(key(block, LANE)), settings[CLOSED_UNTIL] or now
        if ready_at > now then
            ready_at = min(ready_at, head(key(block, LANE_NOW)))
        end
        if ready_at < huge then
            if not is_free(block) then
                make_flows()
                opens = max(opens, flows.source_opens_at(block))
            end
            next_at = min(next_at, max(ready_at, opens))
        end
    end
end
if next_at > now then
    next_at = min(next_at, head(LEASES), head(key(0, LANE)))
end
-- The one who claims knows when to come again; the others are called only if there is work for them now.
calls_others = calls_others and next_at <= now
return answer('ok', recovered, buried, next_at < huge and max(next_at, now) or false, unpack(told))
