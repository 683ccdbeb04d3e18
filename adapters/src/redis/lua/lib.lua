-- Every script begins with its keys (keys.lua, or few_keys.lua) and this: the clock, what the queue remembers of itself,
-- the answer.
--
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
