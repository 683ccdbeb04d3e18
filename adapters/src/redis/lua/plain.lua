-- What nearly all jobs do: a fresh one begins, an attempt simply succeeds. There a row is changed as the text that it is,
-- and no table is made for it. Whatever is not plain is left to the ordinary way. Needs flush.lua, sources.lua,
-- history.lua.
--
-- A row's text is its values one after another, each as `pack` gives it, so texts of values can be joined.

local unpack_limit, sub = cmsgpack.unpack_limit, string.sub
local BEFORE_DUE, BEFORE_PARKED, BEFORE_STARTED, BEFORE_SUCCEEDED = 1, 2, 4, 5

-- The packed texts of values that most rows share.
local packed = {}
local function packed_one(value)
    local known = packed[value]
    if not known then
        known = pack(value)
        packed[value] = known
    end
    return known
end

local LETTER_PRIORITY, LETTER_ATTEMPT, LETTER_NOMINAL, LETTER_OUTCOME, LETTER = 1, 2, 3, 4, 5
local no_trouble = pack(false, false, 0)
local last_letter = { false, false, false, false, false }

-- Ends an attempt that succeeded; whether that was plain.
local function complete_plain(block, name, raw, token, cursor, next_due_at, outcome)
    local _, due_at, parked, _, _, succeeded, _, _, _, _, _, run_at, priority, nominal, attempts, _, _, _, _,
        of_worker, lease_token, expires, _, again_at = decode(raw)
    if lease_token ~= token or not of_worker or expires <= now or again_at or parked ~= 0 then
        return false
    end
    local lists, number, attempt = plain_of(block), number_of_finished(COMPLETED_TOTAL), attempts + 1
    nominal = nominal and nominal + due_at
    if last_letter[LETTER_OUTCOME] ~= outcome or last_letter[LETTER_NOMINAL] ~= nominal
        or last_letter[LETTER_ATTEMPT] ~= attempt or last_letter[LETTER_PRIORITY] ~= priority then
        last_letter = { priority, attempt, nominal, outcome, pack(now, priority, attempt, nominal, outcome) }
    end
    completed_rows[block] = and_name(completed_rows[block], pack(number, name) .. last_letter[LETTER])
    if cursor then
        with(lists[PLAIN_CURSOR_SET], name, cursor)
    end
    local begin
    if next_due_at and next_due_at ~= due_at then
        begin = sub(raw, 1, unpack_limit(raw, BEFORE_DUE, 0)) .. packed_one(next_due_at)
            .. sub(raw, unpack_limit(raw, BEFORE_PARKED, 0) + 1, (unpack_limit(raw, BEFORE_SUCCEEDED, 0)))
        with(lists[PLAIN_DUE_SET], text(next_due_at), name)
    else
        begin = sub(raw, 1, (unpack_limit(raw, BEFORE_SUCCEEDED, 0)))
    end
    local after = begin .. packed_one(now) .. packed_one(outcome) .. no_trouble .. pack(token)
    with(lists[PLAIN_SET], name, after)
    plain_raws[block][name] = after
    and_name(lists[PLAIN_LEASE_GONE], source_names[block] .. '\0' .. name)
    if succeeded ~= now then
        with(lists[PLAIN_SUCCESS_SET], text(now), name)
    end
    if not succeeded then
        lists[PLAIN_NEVER] = lists[PLAIN_NEVER] - 1
    end
    tokens_gone = tokens_gone or {}
    local gone = tokens_gone[of_worker]
    if gone then
        gone[token] = true
    else
        tokens_gone[of_worker] = { [token] = true }
    end
    return true
end
