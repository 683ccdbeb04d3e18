-- The end of a lease that nobody extended. Needs rows.lua, sources.lua, history.lua.

local FAN_OUT_STALLS_MAX = 3

-- The wish that came while a job was active, now that the job is gone. A parked user's is dropped.
local function run_again(row, at, priority, nominal)
    if at and (row[PARKED] or 0) == 0 then
        want(row, at, priority, nominal, false)
    end
end

-- Ends the job for good, as far as its row goes, and gives the wish that came meanwhile a job of its own.
local function end_job(block, name, row)
    local at, priority, nominal = row[AGAIN_AT], row[AGAIN_PRIORITY], row[AGAIN_NOMINAL]
    drop_job(block, name, row)
    run_again(row, at, priority, nominal)
    touch(block, name, row)
end

-- Takes a job back whose lease expired; whether it was given up, as it did so too often.
local function stall(block, name, row)
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
    touch(block, name, row)
    return false
end
