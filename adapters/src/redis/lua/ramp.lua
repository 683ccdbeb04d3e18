-- A source that was closed opens again step by step (flows.lua says how). Needs sources.lua.

local function start_ramp(block, since)
    local row = source(block)
    row[RAMP_SINCE], row[RAMP_STARTS] = since, 0
    touch_source(block)
end
