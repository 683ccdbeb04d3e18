-- Schedules: a row each, in one hash.

local DEFINITION, OF_SOURCE, REVISION, LAST_TICK_AT, FIRED, MISSED = 1, 2, 3, 4, 5, 6

local function schedule(name)
    local raw = call('HGET', SCHEDULES, name)
    return raw and decode(raw) or false
end

local function set_schedule(name, row)
    call('HSET', SCHEDULES, name, pack(row))
    changed = true
end

-- The block of the source of a schedule that is there.
local function block_of_schedule(name)
    local row = schedule(name)
    if row then
        for block = 1, #source_names do
            if source_names[block] == row[OF_SOURCE] then
                return block
            end
        end
    end
    return nil
end

-- The row of a fan-out, a new one if need be.
local function fan_out_row(name)
    local row = load(0, { name })[name]
    if not row then
        row = { 0, 0, 0, false, false, false, false, false, false, 0, false }
        rows[0][name] = row
    end
    return row
end
