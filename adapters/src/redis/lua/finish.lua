-- The ends of attempts, several at a time: done, once more later, given up, handed back. Each needs the live lease, so a
-- worker that lost it commits nothing; each leaves its token behind, so that the same one sent again hears so.
--
-- The ends stand one after another among the arguments, behind their count, each as END_VALUES: kind, block, name, token,
-- and four that belong to the kind. The answer to each is a number.

local DONE, ALREADY_DONE, LEASE_LOST = 0, 1, 2
local COMPLETE, RETRY, FAIL = 0, 1, 2
local ENDS_COUNT, END_VALUES = 2, 8

-- The source answers: the next pause is a short one again.
local function mend_gate(block)
    local settings = source(block)
    if settings[LIMITED_IN_A_ROW] > 0 then
        settings[LIMITED_IN_A_ROW] = 0
        touch_source(block)
    end
end

local function complete(block, name, row, cursor, next_due_at, outcome, synced)
    local number, attempt = number_of_finished(COMPLETED_TOTAL), (row[ATTEMPTS] or 0) + 1
    local filed = pack(number, name, now, row[PRIORITY], attempt, row[NOMINAL] or false, outcome)
    completed_rows[block] = and_name(completed_rows[block], filed)
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
            mend_gate(block)
        end
    end
    end_job(block, name, row)
end

-- What is said to each end; which tokens are done with; and whether a job whose attempt ended waits again.
local said, ended, any_waits_again = {}, {}, false
local ends_end = ENDS_COUNT + arguments[ENDS_COUNT] * END_VALUES

if ends_end > ENDS_COUNT then
    -- Those of a block are read together.
    local names_of, raws_of, next_of = {}, {}, {}
    for at = ENDS_COUNT, ends_end - 1, END_VALUES do
        local block = arguments[at + 2]
        names_of[block] = and_name(names_of[block], arguments[at + 3])
    end
    for block, names in pairs(names_of) do
        raws_of[block] = call('HMGET', key(block, ROWS), unpack(names))
        next_of[block] = 0
        rows[block] = rows[block] or {}
    end
    for at = ENDS_COUNT, ends_end - 1, END_VALUES do
        local kind, block, name, token = arguments[at + 1], arguments[at + 2], arguments[at + 3], arguments[at + 4]
        local first, second, third = arguments[at + 5], arguments[at + 6], arguments[at + 7]
        local number, known, of_plain, word = next_of[block] + 1, rows[block], plain_raws[block], LEASE_LOST
        next_of[block] = number
        local row, raw = known[name], of_plain and of_plain[name] or raws_of[block][number]
        local synced = kind == COMPLETE and block > 0 and arguments[at + 8]
        if synced and row == nil and raw and complete_plain(block, name, raw, token, first, second, third) then
            mend_gate(block)
            ended[#ended + 1] = token
            said[#said + 1] = DONE
        else
            if row == nil then
                row = raw and row_of(raw)
                known[name] = row
            end
            if is_live(row, token) then
                row[FINISHED] = token
                if kind == COMPLETE then
                    complete(block, name, row, first, second, third, arguments[at + 8])
                else
                    make_setbacks()
                    if kind == RETRY then
                        setbacks.retry(block, name, row, first, second)
                    elseif kind == FAIL then
                        setbacks.fail(block, name, row, first, second, third)
                    else
                        setbacks.release(row, first)
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
end
