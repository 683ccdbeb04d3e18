-- The counts of the whole queue, all of them from the sizes of indexes.

local counts = { 0, 0, call('ZCARD', LEASES), 0, 0, meta[COMPLETED_TOTAL], meta[FAILED_TOTAL] }

local function count_lane(set)
    local ready = call('ZCOUNT', set, '-inf', now)
    counts[1] = counts[1] + ready
    counts[2] = counts[2] + call('ZCARD', set) - ready
end

local by_source = {}
for block = 0, #source_names do
    count_lane(key(block, LANE))
    counts[4] = counts[4] + call('LLEN', key(block, COMPLETED))
    counts[5] = counts[5] + call('ZCARD', key(block, FAILED))
    if block > 0 then
        count_lane(key(block, LANE_NOW))
        local row, in_window = source(block), 0
        if row[JOBS_COUNT] then
            make_flows()
            in_window = row[JOBS_COUNT] - windows.available(flows.of(block)[STARTS], row[JOBS_COUNT], row[JOBS_MS])
        end
        local users = call('HLEN', key(block, ROWS))
        local never = call('HGET', NEVER_SYNCED, source_names[block])
        local oldest = call('ZRANGE', key(block, SUCCESS), 0, 0, 'WITHSCORES')[2]
        -- Beside how many they are: how many succeeded since each bound, and when 50, 95 and 99 of a hundred did.
        local success = key(block, SUCCESS)
        local fresh = call('ZCARD', success)
        local within, ranks = {}, {}
        for i, bound_ms in ipairs(arguments[2]) do
            within[i] = call('ZCOUNT', success, now - bound_ms, '+inf')
        end
        for i, percent in ipairs({ 50, 95, 99 }) do
            local place = fresh - math.ceil(fresh * percent / 100)
            local at = fresh > 0 and call('ZRANGE', success, place, place, 'WITHSCORES')[2]
            ranks[i] = at and tonumber(at) or false
        end
        by_source[block] = {
            row, in_window, users, users - call('ZCARD', key(block, DUE)),
            never and tonumber(never) or 0, oldest and tonumber(oldest) or false, fresh, within, ranks,
        }
    end
end
local workers = call('HGETALL', WORKERS)
for i = 2, #workers, 2 do
    workers[i] = #decode(workers[i])
end
return pack(now, 'ok', counts, by_source, workers)
