-- Saves how far a long job came and asks leave for more requests. Needs all sources: a fan-out's is that of its schedule.

local PAUSED_RECHECK_MS = 60000

make_flows()

local _, block, name, token, progress, requests = unpack(arguments)
local row = load(block, { name })[name]
if not is_live(row, token) then
    return pack(now, 'lost')
end
local at_source = block > 0 and block or block_of_schedule(name)
local settings = source(at_source)
for _, count in ipairs({ settings[PROJECT_COUNT] or huge, settings[USER_COUNT] or huge }) do
    if requests > count then
        return pack(now, 'too_large', count)
    end
end
if progress and call('HGET', key(block, CURSORS), name) ~= progress then
    if block > 0 then
        -- A job that gets further each time is no poison, however often its process is killed.
        row[STALLS] = 0
    end
    set_cursor(block, name, progress)
    touch(row)
end

-- Records the requests, or says until when all of them have to wait.
local function permit()
    local known = flows.of(at_source)
    local wait_until = now
    if settings[PROJECT_COUNT] then
        wait_until = windows.opens_at(known[REQUESTS], settings[PROJECT_COUNT], settings[PROJECT_MS], requests)
    end
    wait_until = max(wait_until, settings[CLOSED_UNTIL] or now)
    if settings[PAUSED] then
        wait_until = max(wait_until, now + PAUSED_RECHECK_MS)
    end
    if block > 0 then
        flows.load_asked(block, { name })
        wait_until = max(wait_until, row[GATE] or now, flows.user_opens_at(block, name, requests))
    end
    if wait_until > now then
        return wait_until
    end
    if settings[PROJECT_COUNT] then
        windows.record(known[REQUESTS], requests, settings[PROJECT_COUNT], settings[PROJECT_MS])
        flows.touch(at_source)
    end
    if block > 0 then
        flows.record_asked(block, name, requests)
    end
    return false
end

local wait_until = false
if requests > 0 then
    wait_until = permit()
end
flush()
flows.flush()
return answer('ok', wait_until)
