-- What ended: the newest completed jobs of each block in a list, dead letters (setbacks.lua) in a set by number, so that
-- one of them can be taken out again. Needs flush.lua, sources.lua.

local FAN_OUTS_KEEP_COMPLETED, FAN_OUTS_KEEP_FAILED = 100, 100
local completed_rows = {}

-- The number of what ends now, which counts in this total.
local function number_of_finished(total)
    meta[total] = meta[total] + 1
    meta[LAST_NUMBER] = meta[LAST_NUMBER] + 1
    changed = true
    return meta[LAST_NUMBER]
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
