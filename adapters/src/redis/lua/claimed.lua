-- What a claim asks, behind the ends that come first (finish.lua), and the leases that are its answer.

local CLAIM_BATCH_MAX = 100
-- What is told of a lease; the last of it is its cursor, which is read at the end.
local LEASE_VALUES = 7

local worker, slots, fan_out_slots = arguments[ends_end + 1], arguments[ends_end + 2], arguments[ends_end + 3]
local lease_ms, held = arguments[ends_end + 4], arguments[ends_end + 5]
slots, fan_out_slots = min(slots, CLAIM_BATCH_MAX), min(fan_out_slots, CLAIM_BATCH_MAX)
-- The answer: what was said to the ends, then the leases.
local told, leases_begin = said, #said

local function give(block, name, row)
    local last = #told
    told[last + 1] = block
    told[last + 2] = name
    told[last + 3] = row[TOKEN]
    told[last + 4] = row[EXPIRES]
    told[last + 5] = (row[ATTEMPTS] or 0) + 1
    told[last + 6] = row[NOMINAL] or false
    told[last + LEASE_VALUES] = false
end
