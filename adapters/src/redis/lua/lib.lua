-- Every script begins with this: the clock, the names of the keys, what the queue remembers of itself, the answer.
--
-- KEYS: the common keys, the five of the fan-outs (block 0), then thirteen for each source (block 1, 2, ...).
-- ARGV: the time in milliseconds (empty: the server's), and the arguments as MessagePack values one after another, the
-- first of which names the sources in the order of their blocks.
-- The answer is MessagePack values, too: the time, then what the script has to say. `false` stands for "none".
--
-- What is short-lived is dear here: a function that is made while the script runs costs as much as ten lines that run, a
-- table that grows value by value as much as its values. So what is seldom needed is made when it is needed (`make_...`),
-- lists are made whole (`{ decode(text) }`) where that can be, and what is stored is values side by side, not a list.

local call, pack, decode = redis.call, cmsgpack.pack, cmsgpack.unpack
local max, min, floor, huge = math.max, math.min, math.floor, math.huge

local now = tonumber(ARGV[1])
if not now then
    local time = call('TIME')
    now = time[1] * 1000 + floor(time[2] / 1000)
end
local arguments = { decode(ARGV[2]) }
local source_names = arguments[1]

local META, SOURCES, SCHEDULES, LEASES, WORKERS, NEVER_SYNCED, WAKE =
    KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]

-- The keys of a block. The fan-outs have the first five only.
local ROWS, CURSORS, LANE, COMPLETED, FAILED = 1, 2, 3, 4, 5
local NAMES, DUE, SUCCESS, LANE_NOW, FLOW, ASKED, ASKED_UNTIL, HELD = 6, 7, 8, 9, 10, 11, 12, 13

local key
do
    local COMMON_KEYS, FAN_OUT_KEYS, SOURCE_KEYS = 7, 5, 13
    function key(block, kind)
        if block == 0 then
            return KEYS[COMMON_KEYS + kind]
        end
        return KEYS[COMMON_KEYS + FAN_OUT_KEYS + (block - 1) * SOURCE_KEYS + kind]
    end
end

-- Whole numbers as the commands take them. Many rows share a few times, and to write a number costs more than to look it
-- up.
local texts = {}
local function text(number)
    local known = texts[number]
    if not known then
        known = string.format('%d', number)
        texts[number] = known
    end
    return known
end

-- What the queue remembers of itself.
local LAST_TOKEN, LAST_NUMBER, COMPLETED_TOTAL, FAILED_TOTAL, CHANGED_AT, MENDING = 1, 2, 3, 4, 5, 6
local meta = call('GET', META)
meta = meta and { decode(meta) } or { 0, 0, 0, 0, 0, false }
local changed = false
local calls_others = false

local function answer(...)
    if changed then
        meta[CHANGED_AT] = max(meta[CHANGED_AT], now)
        call('SET', META, pack(unpack(meta)))
    end
    if calls_others then
        call('PUBLISH', WAKE, '')
    end
    return pack(now, ...)
end
