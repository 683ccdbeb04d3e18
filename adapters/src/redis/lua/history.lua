-- What ended: the newest completed jobs of each block in a list, dead letters in a set by number, so that one of them
-- can be taken out again. Needs sources.lua.

local FAN_OUTS_KEEP_COMPLETED, FAN_OUTS_KEEP_FAILED = 100, 100
local completed_rows = {}

local function number_of_finished(total)
    meta[total] = meta[total] + 1
    meta[LAST_NUMBER] = meta[LAST_NUMBER] + 1
    changed = true
    return meta[LAST_NUMBER]
end

local function file_completed(block, name, row, outcome)
    local number, attempt = number_of_finished(COMPLETED_TOTAL), (row[ATTEMPTS] or 0) + 1
    local filed = pack(number, name, now, row[PRIORITY], attempt, row[NOMINAL] or false, outcome)
    completed_rows[block] = and_name(completed_rows[block], filed)
end

local function file_failed(block, name, row, attempt, why)
    local number = number_of_finished(FAILED_TOTAL)
    local keep = block == 0 and FAN_OUTS_KEEP_FAILED or source(block)[KEEP_FAILED]
    local letter = pack(number, name, now, row[PRIORITY], attempt, row[NOMINAL] or false, why)
    call('ZADD', key(block, FAILED), number, letter)
    call('ZREMRANGEBYRANK', key(block, FAILED), 0, -(keep + 1))
end

local function flush_history()
    for block, list in pairs(completed_rows) do
        local keep = block == 0 and FAN_OUTS_KEEP_COMPLETED or source(block)[KEEP_COMPLETED]
        if keep > 0 then
            local length = call('LPUSH', key(block, COMPLETED), unpack(list))
            if length > keep then
                call('LTRIM', key(block, COMPLETED), '0', text(keep - 1))
            end
        end
    end
    completed_rows = {}
end
