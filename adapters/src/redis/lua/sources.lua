-- Sources: what an operator or an answer of the source decides.

local JOBS_COUNT, JOBS_MS, PROJECT_COUNT, PROJECT_MS, USER_COUNT, USER_MS = 1, 2, 3, 4, 5, 6
local KEEP_COMPLETED, KEEP_FAILED, STALLS_MAX, DEFINED, PAUSED, CLOSED_UNTIL, CLOSED_WHY, LIMITED_IN_A_ROW =
    7, 8, 9, 10, 11, 12, 13, 14
-- Since when a source that was closed opens again, step by step, and how many jobs have started since.
local RAMP_SINCE, RAMP_STARTS = 15, 16
-- Whether users ever had a limit of requests: only then there may be windows of theirs.
local HAD_USER_LIMIT = 17

local sources, sources_touched = {}, {}

-- The source of a block, or `false`.
local function source(block)
    local known = sources[block]
    if known == nil then
        local raw = call('HGET', SOURCES, source_names[block])
        known = raw and { decode(raw) } or false
        sources[block] = known
    end
    return known
end

local function touch_source(block)
    sources_touched[block] = true
    changed = true
end

local function flush_sources()
    for block in pairs(sources_touched) do
        call('HSET', SOURCES, source_names[block], pack(unpack(sources[block])))
    end
    sources_touched = {}
end
