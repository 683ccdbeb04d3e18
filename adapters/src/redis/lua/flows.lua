-- What flows through a source: its starts, its requests, and the ramp by which it opens again. Needs windows.lua.
--
-- Like windows, these functions are made when first needed. What is asked of a source that has neither limits nor a ramp
-- (`is_free`) needs none of them.

local STARTS, REQUESTS = 1, 2
local flows

-- Whether nothing holds the source's jobs back but a pause, its gate and the users' own.
local function is_free(block)
    local settings = source(block)
    return not (settings[JOBS_COUNT] or settings[PROJECT_COUNT] or settings[USER_COUNT] or settings[RAMP_SINCE])
end

local function make_flows()
    if flows then
        return
    end
    make_windows()
    local available, opens_at, record = windows.available, windows.opens_at, windows.record
    local RAMP_UNLIMITED_MS, RAMP_UNLIMITED_STARTS, SECOND_MS = 15000, 10, 1000

    local read, read_touched = {}, {}

    local function flow(block)
        local known = read[block]
        if not known then
            local raw = call('GET', key(block, FLOW))
            known = raw and decode(raw) or { {}, {} }
            read[block] = known
        end
        return known
    end

    local function touch_flow(block)
        read_touched[block] = true
        changed = true
    end

    local function flush_flows()
        for block in pairs(read_touched) do
            call('SET', key(block, FLOW), pack(read[block]))
        end
        read_touched = {}
    end

    -- How many starts in all are allowed since the source opened again; nil once the ramp is over.
    local function ramp_allowance(jobs_count, jobs_ms, elapsed_ms)
        if jobs_count then
            if elapsed_ms >= jobs_ms then
                return nil
            end
            return 1 + floor(jobs_count * elapsed_ms / jobs_ms)
        end
        if elapsed_ms < RAMP_UNLIMITED_MS then
            return RAMP_UNLIMITED_STARTS * 2 ^ floor(elapsed_ms / SECOND_MS)
        end
        return nil
    end

    -- After how many milliseconds one start more than so far is allowed.
    local function ramp_opens_after_ms(jobs_count, jobs_ms, starts)
        if jobs_count then
            return min(math.ceil(starts * jobs_ms / jobs_count), jobs_ms)
        end
        for second = 0, RAMP_UNLIMITED_MS / SECOND_MS - 1 do
            if RAMP_UNLIMITED_STARTS * 2 ^ second > starts then
                return second * SECOND_MS
            end
        end
        return RAMP_UNLIMITED_MS
    end

    local function elapsed_ms(since)
        return max(0, now - since)
    end

    -- How many jobs may start now, as far as the source's limits and its ramp are concerned.
    local function room(block)
        local settings, known = source(block), flow(block)
        local free = huge
        if settings[JOBS_COUNT] then
            free = min(free, available(known[STARTS], settings[JOBS_COUNT], settings[JOBS_MS]))
        end
        if settings[PROJECT_COUNT] then
            free = min(free, available(known[REQUESTS], settings[PROJECT_COUNT], settings[PROJECT_MS]))
        end
        if settings[RAMP_SINCE] then
            local allowed = ramp_allowance(settings[JOBS_COUNT], settings[JOBS_MS], elapsed_ms(settings[RAMP_SINCE]))
            if allowed then
                free = min(free, max(0, allowed - settings[RAMP_STARTS]))
            end
        end
        return free
    end

    -- Records starts, each with its first request.
    local function record_starts(block, starts)
        local settings, known = source(block), flow(block)
        if settings[JOBS_COUNT] then
            record(known[STARTS], starts, settings[JOBS_COUNT], settings[JOBS_MS])
            touch_flow(block)
        end
        if settings[PROJECT_COUNT] then
            record(known[REQUESTS], starts, settings[PROJECT_COUNT], settings[PROJECT_MS])
            touch_flow(block)
        end
        if settings[RAMP_SINCE] then
            if ramp_allowance(settings[JOBS_COUNT], settings[JOBS_MS], elapsed_ms(settings[RAMP_SINCE])) then
                settings[RAMP_STARTS] = settings[RAMP_STARTS] + starts
            else
                settings[RAMP_SINCE], settings[RAMP_STARTS] = false, 0
            end
            touch_source(block)
        end
    end

    -- When the source lets its next job start.
    local function source_opens_at(block)
        local settings, known = source(block), flow(block)
        local at = now
        if settings[RAMP_SINCE] then
            local allowed = ramp_allowance(settings[JOBS_COUNT], settings[JOBS_MS], elapsed_ms(settings[RAMP_SINCE]))
            if allowed and allowed <= settings[RAMP_STARTS] then
                local after_ms = ramp_opens_after_ms(settings[JOBS_COUNT], settings[JOBS_MS], settings[RAMP_STARTS])
                at = max(at, settings[RAMP_SINCE] + after_ms)
            end
        end
        if settings[JOBS_COUNT] then
            at = max(at, opens_at(known[STARTS], settings[JOBS_COUNT], settings[JOBS_MS], 1))
        end
        if settings[PROJECT_COUNT] then
            at = max(at, opens_at(known[REQUESTS], settings[PROJECT_COUNT], settings[PROJECT_MS], 1))
        end
        return at
    end

    -- Requests on behalf of single users: a window each, there only while some count. The first field says when none does.
    local asked, asked_touched = {}, {}

    local function load_asked(block, names)
        local known = asked[block] or {}
        asked[block] = known
        local raws = call('HMGET', key(block, ASKED), unpack(names))
        for i = 1, #names do
            if known[names[i]] == nil then
                known[names[i]] = raws[i] and decode(raws[i]) or false
            end
        end
        return known
    end

    -- When `wanted` more requests on behalf of the user fit. The user's window must have been loaded.
    local function user_opens_at(block, name, wanted)
        local settings, window = source(block), asked[block][name]
        if not settings[USER_COUNT] or not window then
            return now
        end
        return opens_at(window[2], settings[USER_COUNT], settings[USER_MS], wanted)
    end

    local function touch_asked(block, name)
        asked_touched[block] = asked_touched[block] or {}
        asked_touched[block][name] = true
        changed = true
    end

    local function record_asked(block, name, requests)
        local settings = source(block)
        local count, window_ms = settings[USER_COUNT], settings[USER_MS]
        if not count then
            return
        end
        local window = asked[block][name]
        if not window or available(window[2], count, window_ms) == count then
            window = { 0, {} }
            asked[block][name] = window
        end
        record(window[2], requests, count, window_ms)
        window[1] = opens_at(window[2], count, window_ms, count)
        touch_asked(block, name)
    end

    local function forget_asked(block, name)
        asked[block] = asked[block] or {}
        asked[block][name] = false
        touch_asked(block, name)
    end

    local function flush_asked()
        for block, names in pairs(asked_touched) do
            local set, until_set, gone
            for name in pairs(names) do
                local window = asked[block][name]
                if window then
                    set = with(set, name, pack(window))
                    until_set = with(until_set, text(window[1]), name)
                else
                    gone = and_name(gone, name)
                end
            end
            if set then
                call('HSET', key(block, ASKED), unpack(set))
                call('ZADD', key(block, ASKED_UNTIL), unpack(until_set))
            end
            if gone then
                call('HDEL', key(block, ASKED), unpack(gone))
                call('ZREM', key(block, ASKED_UNTIL), unpack(gone))
            end
        end
        asked_touched = {}
    end

    local function flush_all()
        flush_asked()
        flush_flows()
    end

    flows = {
        of = flow, touch = touch_flow, room = room, record_starts = record_starts, source_opens_at = source_opens_at,
        load_asked = load_asked, user_opens_at = user_opens_at, touch_asked = touch_asked, record_asked = record_asked,
        forget_asked = forget_asked, flush_asked = flush_asked, flush = flush_all,
    }
end
