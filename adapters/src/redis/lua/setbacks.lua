-- How a job ends, and what comes before that if an attempt did not simply succeed. Needs flush.lua, wishes.lua,
-- sources.lua, history.lua.

local FAN_OUT_STALLS_MAX = 3

-- Ends the job for good, as far as its row goes, and gives the wish that came meanwhile a job of its own; a parked
-- user's is dropped. How far a fan-out came goes with its job.
local function end_job(block, name, row)
    local at, priority, nominal = row[AGAIN_AT], row[AGAIN_PRIORITY], row[AGAIN_NOMINAL]
    cut(row, FINISHED)
    if block == 0 then
        set_cursor(0, name, false)
    end
    if at and (row[PARKED] or 0) == 0 then
        make_wishes()
        want(row, at, priority, nominal, false)
    end
    touch(row)
end

-- Made when the first setback comes.
local setbacks
local function make_setbacks()
    if setbacks then
        return
    end
    make_wishes()

    local function file_failed(block, name, row, attempt, why)
        local number = number_of_finished(FAILED_TOTAL)
        local keep = block == 0 and FAN_OUTS_KEEP_FAILED or source(block)[KEEP_FAILED]
        local letter = pack(number, name, now, row[PRIORITY], attempt, row[NOMINAL] or false, why)
        call('ZADD', key(block, FAILED), number, letter)
        call('ZREMRANGEBYRANK', key(block, FAILED), 0, -(keep + 1))
    end

    -- The job waits again, until `at` if that is given, else from its own time. A wish that came meanwhile is met by the
    -- next attempt, but does not bring it forward.
    local function hand_back(row, at)
        local run_at = at or row[RUN_AT]
        take_again(row)
        row[RUN_AT] = run_at
        row[BACKING_OFF] = at and true or false
        touch(row)
    end

    local function retry(block, name, row, at, why)
        if block > 0 then
            row[ERROR] = why
        end
        row[ATTEMPTS] = (row[ATTEMPTS] or 0) + 1
        hand_back(row, at)
        row[JOB_ERROR] = why
    end

    local function fail(block, name, row, why, next_due_at, park)
        if block > 0 then
            row[ERROR] = why
            row[DUE_AT] = next_due_at or row[DUE_AT]
            if park > 0 then
                row[PARKED] = park
            end
        end
        file_failed(block, name, row, (row[ATTEMPTS] or 0) + 1, why)
        end_job(block, name, row)
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
        touch(row)
        return false
    end

    setbacks = { retry = retry, fail = fail, release = hand_back, stall = stall }
end
