-- Removes a waiting or delayed job. An active one is left alone.

local _, block, name = unpack(arguments)
local row = load(block, { name })[name]
local waits = row and row[RUN_AT] and not row[WORKER]
if waits then
    cut(row, FINISHED)
    if block == 0 then
        set_cursor(0, name, false)
    end
    touch(row)
end
flush()
return answer('ok', waits and 1 or 0)
