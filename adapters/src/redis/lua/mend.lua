-- A clock that stepped back must not freeze the queue: leases, gates and waits that would last longer than they ever may
-- are shortened. After a step of more than a quarter of an hour the clock was wrong before: what it had put far into the
-- future comes nearer. One page a call; until the last one every other script asks for the next.

local WOBBLE_MS, WRONG_MS, GATE_MS_MAX, PAGE = 1000, 900000, 86400000, 200

make_flows()
local mending = meta[MENDING]
if not mending then
    if meta[CHANGED_AT] - now <= WOBBLE_MS then
        return pack(now, 'done')
    end
    mending = { now, meta[CHANGED_AT] - now, 0, false }
end
local real_now = now
now = mending[1]
local step_ms, block = mending[2], mending[3]
local was_wrong = step_ms > WRONG_MS

local function nearer(at)
    return at > now and max(at - step_ms, now) or at
end

local function mend_row(of, name, row)
    if row[RUN_AT] then
        if was_wrong then
            row[RUN_AT] = nearer(row[RUN_AT])
            if row[AGAIN_AT] then
                row[AGAIN_AT] = nearer(row[AGAIN_AT])
            end
        end
        if row[HELD_UNTIL] then
            row[HELD_UNTIL] = false
        end
        if row[WORKER] then
            row[EXPIRES] = min(row[EXPIRES], now + row[LEASE_MS])
        end
    end
    if of > 0 then
        if was_wrong then
            row[DUE_AT] = nearer(row[DUE_AT])
        end
        if row[GATE] then
            row[GATE] = min(row[GATE], now + GATE_MS_MAX)
        end
    end
    touch(row)
end

local function mend_source(of)
    local row, known = source(of), flows.of(of)
    local closed_until = row[CLOSED_UNTIL]
    if closed_until and closed_until > now + GATE_MS_MAX then
        row[CLOSED_UNTIL] = now + GATE_MS_MAX
        touch_source(of)
    end
    if row[RAMP_SINCE] then
        local latest = closed_until and max(min(closed_until, now + GATE_MS_MAX), now) or now
        row[RAMP_SINCE] = min(row[RAMP_SINCE], latest)
        touch_source(of)
    end
    windows.restamp(known[STARTS])
    windows.restamp(known[REQUESTS])
    flows.touch(of)
end

if block == 0 then
    local names = call('HKEYS', SCHEDULES)
    if was_wrong then
        for i = 1, #names do
            local row = schedule(names[i])
            row[LAST_TICK_AT] = min(row[LAST_TICK_AT], now)
            set_schedule(names[i], row)
        end
    end
    local fan_outs = call('HKEYS', key(0, ROWS))
    if fan_outs[1] then
        local known = load(0, fan_outs)
        for i = 1, #fan_outs do
            mend_row(0, fan_outs[i], known[fan_outs[i]])
        end
    end
    for of = 1, #source_names do
        mend_source(of)
    end
    mending = { now, step_ms, 1, false }
else
    local from = mending[4] and '(' .. mending[4] or '-'
    local names = call('ZRANGEBYLEX', key(block, NAMES), from, '+', 'LIMIT', 0, PAGE)
    if names[1] then
        local settings, known = source(block), load(block, names)
        local asked = flows.load_asked(block, names)
        for i = 1, #names do
            mend_row(block, names[i], known[names[i]])
            local window = asked[names[i]]
            if window and settings[USER_COUNT] and window[1] > now + step_ms - WOBBLE_MS then
                windows.restamp(window[2])
                window[1] = windows.opens_at(window[2], settings[USER_COUNT], settings[USER_MS], settings[USER_COUNT])
                flows.touch_asked(block, names[i])
            elseif window then
                flows.forget_asked(block, names[i])
            end
        end
    end
    if #names < PAGE then
        mending = { now, step_ms, block + 1, false }
    else
        mending = { now, step_ms, block, names[PAGE] }
    end
end
flush()
flush_sources()
flows.flush()
local done = mending[3] > #source_names
meta[MENDING] = not done and mending
if done then
    meta[CHANGED_AT] = now
end
call('SET', META, pack(unpack(meta)))
return pack(real_now, done and 'done' or 'more')
