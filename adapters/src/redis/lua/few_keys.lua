-- KEYS of who only enqueues, in one source: each key that is named costs. A new job, and one that joins another, change a row
-- and its place in a lane and nothing else; the names of other keys that flush.lua knows have no value here.

local META, SOURCES, WAKE = KEYS[1], KEYS[2], KEYS[3]

local ROWS, LANE, LANE_NOW = 4, 5, 6
local function key(_, kind)
    return KEYS[kind]
end
