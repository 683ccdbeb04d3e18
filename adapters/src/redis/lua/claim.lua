-- Who may start what now, and what comes back from workers that fell silent. Ends of attempts come first (finish.lua): a
-- worker tells how its jobs ended and asks for the next in one script.

local EXPIRE_BATCH_MAX, CLAIM_BATCH_MAX, HELD_BATCH_MAX, ASKED_DROPPED_MAX = 100, 100, 100, 100
-- Leases that are looked through, when a worker does not know all it holds, at the most.
local LEASES_SCAN_MAX = 10000

local _, _, worker, slots, fan_out_slots, lease_ms, held = unpack(arguments)
slots, fan_out_slots = min(slots, CLAIM_BATCH_MAX), min(fan_out_slots, CLAIM_BATCH_MAX)
local leases = {}

-- The jobs behind members of the set of leases, with their rows, in the same order.
local function jobs_behind(members)
    local block_of, jobs = { [''] = 0 }, {}
    for block = 1, #source_names do
        block_of[source_names[block]] = block
    end
    for i = 1, #members do
        local split = string.find(members[i], '\0', 1, true)
        jobs[i] = { block_of[string.sub(members[i], 1, split - 1)], string.sub(members[i], split + 1) }
    end
    load_all(jobs, 1, 2)
    return jobs
end

local recovered, buried = 0, 0
local expired = call('ZRANGEBYSCORE', LEASES, '-inf', text(now), 'LIMIT', '0', text(EXPIRE_BATCH_MAX))
if expired[1] then
    for _, job in ipairs(jobs_behind(expired)) do
        local block, name = job[1], job[2]
        if stall(block, name, rows[block][name]) then
            buried = buried + 1
        else
            recovered = recovered + 1
        end
    end
    flush()
end

-- Windows of users' requests that count no more are dropped; nobody sees it, so it does not count as a change. A step
-- back of the clock by a second is ordinary wobble: what left the window just now may come back into it.
local function drop_asked(block, over)
    make_flows()
    local settings, was_changed = source(block), changed
    local known = load_asked(block, over)
    for i = 1, #over do
        local window = known[over[i]]
        local count, window_ms = settings[USER_COUNT], settings[USER_MS]
        local empty_at = count and opens_at(window[2], count, window_ms, count) or now
        if empty_at > now then
            -- A longer window was set since, or the clock stepped back.
            window[1] = empty_at
        else
            known[over[i]] = false
        end
        touch_asked(block, over[i])
    end
    flush_asked()
    changed = was_changed
end

for block = 1, #source_names do
    local over = call(
        'ZRANGEBYSCORE', key(block, ASKED_UNTIL), '-inf', text(meta[CHANGED_AT] - WOBBLE_MS),
        'LIMIT', '0', text(ASKED_DROPPED_MAX)
    )
    if over[1] then
        drop_asked(block, over)
    end
end

local function give(block, name, row)
    leases[#leases + 1] = {
        block, name, row[TOKEN], row[EXPIRES], (row[ATTEMPTS] or 0) + 1, row[NOMINAL] or false, false,
    }
end

local tokens = tokens_of(worker).list
if tokens[1] then
    local knows = {}
    for i = 1, #held do
        knows[held[i]] = true
    end
    local unknown = false
    for i = 1, #tokens do
        unknown = unknown or not knows[tokens[i]]
    end
    if unknown then
        local again = {}
        for _, job in ipairs(jobs_behind(call('ZRANGE', LEASES, 0, LEASES_SCAN_MAX - 1))) do
            local row = rows[job[1]][job[2]]
            if row[WORKER] == worker and row[EXPIRES] > now and not knows[row[TOKEN]] then
                again[#again + 1] = { row[TOKEN], job[1], job[2], row }
            end
        end
        table.sort(again, function(left, right) return left[1] < right[1] end)
        for i = 1, #again do
            local _, block, name, row = unpack(again[i])
            local free = block == 0 and fan_out_slots or slots
            if free > 0 then
                if block == 0 then
                    fan_out_slots = fan_out_slots - 1
                else
                    slots = slots - 1
                end
                row[LEASE_MS], row[EXPIRES] = lease_ms, now + lease_ms
                touch(block, name, row)
                give(block, name, row)
            end
        end
    end
end

local function start(block, name, row)
    meta[LAST_TOKEN] = max(now * 1000, meta[LAST_TOKEN] + 1)
    widen(row)
    row[HELD_UNTIL], row[BACKING_OFF] = false, false
    row[WORKER] = worker
    row[TOKEN] = meta[LAST_TOKEN]
    row[EXPIRES] = now + lease_ms
    row[LEASE_MS] = lease_ms
    touch(block, name, row)
    give(block, name, row)
end

if fan_out_slots > 0 then
    local names = call('ZRANGEBYSCORE', key(0, LANE), '-inf', text(now), 'LIMIT', '0', fan_out_slots)
    local known = load(0, names)
    for i = 1, #names do
        start(0, names[i], known[names[i]])
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
        free = room(block)
    end
    local skip_now, skip = 0, 0
    while slots > 0 and free > 0 and put_aside < HELD_BATCH_MAX do
        local wanted = min(slots, free)
        local names = call('ZRANGEBYSCORE', key(block, LANE_NOW), '-inf', text(now), 'LIMIT', skip_now, wanted)
        skip_now = skip_now + #names
        if #names < wanted then
            local more = call('ZRANGEBYSCORE', key(block, LANE), '-inf', text(now), 'LIMIT', skip, wanted - #names)
            skip = skip + #more
            for i = 1, #more do
                names[#names + 1] = more[i]
            end
        end
        if not names[1] then
            break
        end
        local known = load(block, names)
        if settings[USER_COUNT] then
            load_asked(block, names)
        end
        for i = 1, #names do
            local name = names[i]
            local row = known[name]
            local opens = settings[USER_COUNT] and user_opens_at(block, name, 1) or now
            if opens > now then
                if put_aside < HELD_BATCH_MAX then
                    widen(row)
                    row[HELD_UNTIL] = opens
                    touch(block, name, row)
                    put_aside = put_aside + 1
                end
            elseif put_aside < HELD_BATCH_MAX then
                if settings[USER_COUNT] then
                    record_asked(block, name, 1)
                end
                row[STARTED] = now
                start(block, name, row)
                slots, free, started = slots - 1, free - 1, started + 1
            end
        end
    end
    if started > 0 and not unbound then
        record_starts(block, started)
    end
end

for block = 1, #source_names do
    if slots <= 0 then
        break
    end
    start_syncs(block)
end
flush()
flush_all_flows()
flush_sources()
flush_history()

-- What the job knows goes along: the user's cursor, or the fan-out's progress.
local wanted = {}
for i = 1, #leases do
    local block = leases[i][1]
    wanted[block] = wanted[block] or {}
    wanted[block][#wanted[block] + 1] = leases[i][2]
end
for block, names in pairs(wanted) do
    local texts, next_text = call('HMGET', key(block, CURSORS), unpack(names)), 1
    for i = 1, #leases do
        if leases[i][1] == block then
            leases[i][7] = texts[next_text]
            next_text = next_text + 1
        end
    end
end

local function head(set)
    local first = call('ZRANGE', set, '0', '0', 'WITHSCORES')
    return first[2] and tonumber(first[2]) or huge
end

local next_at = min(head(LEASES), head(key(0, LANE)))
for block = 1, #source_names do
    local settings = source(block)
    local ready_at = not settings[PAUSED] and min(head(key(block, LANE)), head(key(block, LANE_NOW))) or huge
    if ready_at < huge then
        local opens = settings[CLOSED_UNTIL] or now
        if not is_free(block) then
            make_flows()
            opens = max(opens, source_opens_at(block))
        end
        next_at = min(next_at, max(ready_at, opens))
    end
end
-- The one who claims knows when to come again; the others are called only if there is work for them now.
calls_others = calls_others and next_at <= now
return answer('ok', leases, recovered, buried, next_at < huge and max(next_at, now) or false, said)
