-- The ends of attempts, several at a time: done, once more later, given up, handed back. Each needs the live lease, so a
-- worker that lost it commits nothing; each leaves its token behind, so that the same one sent again hears so.
--
-- Each end is a list: its kind, block, name, token, and what belongs to the kind. The answer to each is a number.

local DONE, ALREADY_DONE, LEASE_LOST = 0, 1, 2
local COMPLETE, RETRY, FAIL = 0, 1, 2

local ends, said = arguments[2], {}

if ends[1] then
    -- The job waits again, until `at` if that is given, else from its own time. A wish that came meanwhile is met by the
    -- next attempt, but does not bring it forward.
    local function hand_back(row, at)
        local run_at = at or row[RUN_AT]
        take_again(row)
        row[RUN_AT] = run_at
        row[BACKING_OFF] = at and true or false
    end

    local function complete(block, name, row, cursor, next_due_at, outcome, synced)
        file_completed(block, name, row[PRIORITY], (row[ATTEMPTS] or 0) + 1, row[NOMINAL] or false, outcome)
        if block > 0 then
            if cursor then
                set_cursor(block, name, cursor)
            end
            row[DUE_AT] = next_due_at or row[DUE_AT]
            row[OUTCOME], row[ERROR] = outcome, false
            if synced then
                row[SUCCEEDED], row[GATE], row[STREAK] = now, false, 0
                if source(block)[LIMITED_IN_A_ROW] > 0 then
                    source(block)[LIMITED_IN_A_ROW] = 0
                    touch_source(block)
                end
            end
        end
        end_job(block, name, row)
    end

    local function retry(block, name, row, at, why)
        if block > 0 then
            row[ERROR] = why
        end
        row[ATTEMPTS] = (row[ATTEMPTS] or 0) + 1
        hand_back(row, at)
        row[JOB_ERROR] = why
        touch(block, name, row)
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

    local function release(block, name, row, at)
        hand_back(row, at)
        touch(block, name, row)
    end

    load_all(ends, 2, 3)
    for i = 1, #ends do
        local one = ends[i]
        local kind, block, name, token = one[1], one[2], one[3], one[4]
        local row = rows[block][name]
        if is_live(row, token) then
            row[FINISHED] = token
            if kind == COMPLETE then
                complete(block, name, row, one[5], one[6], one[7], one[8])
            elseif kind == RETRY then
                retry(block, name, row, one[5], one[6])
            elseif kind == FAIL then
                fail(block, name, row, one[5], one[6], one[7])
            else
                release(block, name, row, one[5])
            end
            said[i] = DONE
        elseif row and row[FINISHED] == token then
            said[i] = ALREADY_DONE
        else
            said[i] = LEASE_LOST
        end
    end
    flush()
    flush_history()
    flush_sources()
end
