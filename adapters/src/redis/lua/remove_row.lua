-- Takes a row out, with all that belongs to it. Needs rows.lua.

local function remove_row(block, name)
    local row = rows[block][name]
    touch(row)
    removed[block] = removed[block] or {}
    removed[block][name] = { [BEFORE] = row[BEFORE] }
    rows[block][name] = false
    set_cursor(block, name, false)
end
