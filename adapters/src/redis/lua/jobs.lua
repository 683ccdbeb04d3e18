-- A page of jobs of one state. Waiting and delayed: in the order of claims, fan-outs first, then source by source, "sync
-- now" before scheduled. Active: by when the lease expires. Finished: source by source, newest first, fan-outs last.

local WAITING, DELAYED, ACTIVE, COMPLETED_STATE = 0, 1, 2, 3

local _, state, offset, limit = unpack(arguments)
local found = {}

-- Reads what of the stretch from `from` of length `length` falls into the page.
local function take(length, read)
    if offset >= length then
        offset = offset - length
        return
    end
    local count = min(length - offset, limit - #found)
    if count > 0 then
        read(offset, offset + count - 1)
    end
    offset = 0
end

local function outstanding(block, name, at)
    local row = load(block, { name })[name]
    local attempt = (row[ATTEMPTS] or 0) + (row[WORKER] and 1 or 0)
    found[#found + 1] = {
        block, name, false, at, row[PRIORITY], attempt, row[WORKER] or false, false, row[JOB_ERROR] or false,
    }
end

local function take_lane(block, set)
    local ready = call('ZCOUNT', set, '-inf', now)
    local first = state == WAITING and 0 or ready
    local length = state == WAITING and ready or call('ZCARD', set) - ready
    take(length, function(from, to)
        local members = call('ZRANGE', set, first + from, first + to, 'WITHSCORES')
        for i = 1, #members, 2 do
            outstanding(block, members[i], tonumber(members[i + 1]))
        end
    end)
end

local function take_finished(block)
    local set = key(block, state == COMPLETED_STATE and COMPLETED or FAILED)
    local count, read = 'ZCARD', 'ZREVRANGE'
    if state == COMPLETED_STATE then
        count, read = 'LLEN', 'LRANGE'
    end
    take(call(count, set), function(from, to)
        for _, raw in ipairs(call(read, set, from, to)) do
            local number, name, at, priority, attempt, _, ending = decode(raw)
            local outcome = state == COMPLETED_STATE and ending
            local why = state ~= COMPLETED_STATE and ending
            found[#found + 1] = { block, name, number, at, priority, attempt, false, outcome, why }
        end
    end)
end

if state == ACTIVE then
    local block_of = { [''] = 0 }
    for block = 1, #source_names do
        block_of[source_names[block]] = block
    end
    take(call('ZCARD', LEASES), function(from, to)
        local members = call('ZRANGE', LEASES, from, to, 'WITHSCORES')
        for i = 1, #members, 2 do
            local split = string.find(members[i], '\0', 1, true)
            local block = block_of[string.sub(members[i], 1, split - 1)]
            outstanding(block, string.sub(members[i], split + 1), tonumber(members[i + 1]))
        end
    end)
elseif state <= DELAYED then
    take_lane(0, key(0, LANE))
    for block = 1, #source_names do
        take_lane(block, key(block, LANE_NOW))
        take_lane(block, key(block, LANE))
    end
else
    for block = 1, #source_names do
        take_finished(block)
    end
    take_finished(0)
end
return pack(now, 'ok', found)
