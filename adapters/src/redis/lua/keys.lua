-- KEYS: the common keys, the five of the fan-outs (block 0), then thirteen for each source (block 1, 2, ...).

local META, SOURCES, SCHEDULES, LEASES, WORKERS, NEVER_SYNCED, WAKE =
    KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]

-- The keys of a block. The fan-outs have the first five only.
local ROWS, CURSORS, LANE, COMPLETED, FAILED = 1, 2, 3, 4, 5
local NAMES, DUE, SUCCESS, LANE_NOW, FLOW, ASKED, ASKED_UNTIL, HELD = 6, 7, 8, 9, 10, 11, 12, 13

local COMMON_KEYS, FAN_OUT_KEYS, SOURCE_KEYS = 7, 5, 13
local function key(block, kind)
    if block == 0 then
        return KEYS[COMMON_KEYS + kind]
    end
    return KEYS[COMMON_KEYS + FAN_OUT_KEYS + (block - 1) * SOURCE_KEYS + kind]
end
