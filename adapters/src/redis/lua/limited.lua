-- The source said "slow down": a gate closes and the job goes back unharmed. What the source said holds, whoever holds
-- the job by now. Needs all sources: a fan-out's is that of its schedule.

local GATE_BASE_MS, GATE_CAP_MS, GATE_MS_MAX, DOUBLINGS_MAX = 1000, 64000, 86400000, 15

local _, block, name, token, whole_source, retry_after_ms, jitter_ms, reason = unpack(arguments)
local row = load(block, { name })[name]
local live = is_live(row, token)
if not live and row and row[FINISHED] == token then
    return pack(now, 'already')
end

-- Requests that were under way together hear "slow down" together: the pause does not double for that.
local function grown(in_a_row, closed_until)
    if closed_until and closed_until > now then
        return max(in_a_row, 1)
    end
    return in_a_row + 1
end

local function pause_until(in_a_row, closed_until)
    local doublings = min(max(in_a_row - 1, 0), DOUBLINGS_MAX)
    local grown_ms = min(GATE_BASE_MS * 2 ^ doublings, GATE_CAP_MS)
    local at = now + min((retry_after_ms or grown_ms) + jitter_ms, GATE_MS_MAX)
    return closed_until and max(closed_until, at) or at
end

local closed_until = false
if whole_source then
    local at_source = block > 0 and block or block_of_schedule(name)
    local settings = at_source and source(at_source)
    if settings then
        settings[LIMITED_IN_A_ROW] = grown(settings[LIMITED_IN_A_ROW], settings[CLOSED_UNTIL])
        closed_until = pause_until(settings[LIMITED_IN_A_ROW], settings[CLOSED_UNTIL])
        settings[CLOSED_UNTIL], settings[CLOSED_WHY] = closed_until, reason
        touch_source(at_source)
        start_ramp(at_source, closed_until)
    end
elseif row then
    row[STREAK] = grown(row[STREAK], row[GATE])
    closed_until = pause_until(row[STREAK], row[GATE])
    row[GATE] = closed_until
    touch(row)
end
if live then
    row[FINISHED] = token
    make_wishes()
    take_again(row)
    -- Also when it is the source that waits: the others then go first.
    row[RUN_AT] = closed_until
    row[BACKING_OFF] = not whole_source
    touch(row)
end
flush()
flush_sources()
if live then
    return answer('ok', closed_until)
end
return answer('lost')
