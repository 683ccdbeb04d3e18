-- The end of a lease that nobody extended, and the end of a job. Needs rows.lua, wishes.lua, sources.lua, history.lua.

local FAN_OUT_STALLS_MAX = 3

-- Ends the job for good, as far as its row goes, and gives the wish that came meanwhile a job of its own; a parked
-- user's is dropped.
local function end_job(block, name, row)
    local at, priority, nominal = row[AGAIN_AT], row[AGAIN_PRIORITY], row[AGAIN_NOMINAL]
    drop_job(block, name, row)
    if at and (row[PARKED] or 0) == 0 then
        make_wishes()
        want(row, at, priority, nominal, false)
    end
    touch(row)
end

-- Takes a job back whose lease expired; whether it was given up, as it did so too often.
local function stall(block, name, row)
    make_wishes()
    local stalls = (row[STALLS] or 0) + 1
    local why = 'the lease expired without a heartbeat (' .. stalls .. ' times)'
    local stalls_max = block == 0 and FAN_OUT_STALLS_MAX or source(block)[STALLS_MAX]
    row[STALLS] = stalls
    if block > 0 then
        row[ERROR] = why
    end
    if stalls > stalls_max then
        file_failed(block, name, row, row[ATTEMPTS] or 0, why)
        end_job(block, name, row)
        return true
    end
    take_again(row)
    row[JOB_ERROR] = why
    touch(row)
    return false
end
