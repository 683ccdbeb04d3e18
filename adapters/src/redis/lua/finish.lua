-- The ends of attempts, several at a time: done, once more later, given up, handed back. Each needs the live lease, so a
-- worker that lost it commits nothing; each leaves its token behind, so that the same one sent again hears so.
--
-- The ends stand one after another among the arguments, behind their count, each as END_VALUES: kind, block, name, token,
-- and four that belong to the kind. The answer to each is a number.

local DONE, ALREADY_DONE, LEASE_LOST = 0, 1, 2
local COMPLETE, RETRY, FAIL = 0, 1, 2
local ENDS_COUNT, END_VALUES = 2, 8

-- What did not simply succeed: made when the first such end comes.
local retry, fail, release
local function make_setbacks()
    make_wishes()

    -- The job waits again, until `at` if that is given, else from its own time. A wish that came meanwhile is met by the
    -- next attempt, but does not bring it forward.
    local function hand_back(row, at)
        local run_at = at or row[RUN_AT]
        take_again(row)
        row[RUN_AT] = run_at
        row[BACKING_OFF] = at and true or false
        touch(row)
    end

    function retry(block, name, row, at, why)
        if block > 0 then
            row[ERROR] = why
        end
        row[ATTEMPTS] = (row[ATTEMPTS] or 0) + 1
        hand_back(row, at)
        row[JOB_ERROR] = why
    end

    function fail(block, name, row, why, next_due_at, park)
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

    function release(block, name, row, at)
        hand_back(row, at)
    end
end

local function complete(block, name, row, cursor, next_due_at, outcome, synced)
    file_completed(block, name, row, outcome)
    if block > 0 then
        if cursor then
            set_cursor(block, name, cursor)
        end
        if next_due_at then
            row[DUE_AT] = next_due_at
        end
        row[OUTCOME] = outcome
        row[ERROR] = false
        if synced then
            row[SUCCEEDED] = now
            row[GATE] = false
            row[STREAK] = 0
            local settings = source(block)
            if settings[LIMITED_IN_A_ROW] > 0 then
                settings[LIMITED_IN_A_ROW] = 0
                touch_source(block)
            end
        end
    end
    end_job(block, name, row)
end

-- What is said to each end; which tokens are done with; and whether a job whose attempt ended waits again.
local said, ended, any_waits_again = {}, {}, false
local ends_end = ENDS_COUNT + arguments[ENDS_COUNT] * END_VALUES

if ends_end > ENDS_COUNT then
    -- Those of a block are read together.
    local names_of = {}
    for at = ENDS_COUNT, ends_end - 1, END_VALUES do
        local block = arguments[at + 2]
        names_of[block] = and_name(names_of[block], arguments[at + 3])
    end
    for block, names in pairs(names_of) do
        load(block, names)
    end
    for at = ENDS_COUNT, ends_end - 1, END_VALUES do
        local kind, block, name, token = arguments[at + 1], arguments[at + 2], arguments[at + 3], arguments[at + 4]
        local first, second, third = arguments[at + 5], arguments[at + 6], arguments[at + 7]
        local row, word = rows[block][name], LEASE_LOST
        if is_live(row, token) then
            row[FINISHED] = token
            if kind == COMPLETE then
                complete(block, name, row, first, second, third, arguments[at + 8])
            else
                if not retry then
                    make_setbacks()
                end
                if kind == RETRY then
                    retry(block, name, row, first, second)
                elseif kind == FAIL then
                    fail(block, name, row, first, second, third)
                else
                    release(block, name, row, first)
                end
            end
            any_waits_again = any_waits_again or row[RUN_AT]
            ended[#ended + 1] = token
            word = DONE
        elseif row and row[FINISHED] == token then
            word = ALREADY_DONE
        end
        said[#said + 1] = word
    end
end
