-- Removes a waiting or delayed job. An active one is left alone.

local _, block, name = unpack(arguments)
local row = load_one(block, name)
local waits = row and row[RUN_AT] and not row[WORKER]
if waits then
    drop_job(block, name, row)
    touch(row)
end
flush()
return answer('ok', waits and 1 or 0)
