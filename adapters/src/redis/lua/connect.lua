-- Tells by which grants users are connected now; those whose grant is another one are unparked. Answers their places.

local NEEDS_REAUTH, OPERATOR = 1, 2

local _, names, grants, due_at, force = unpack(arguments)
if not source(1) then
    return pack(now, 'unknown')
end
local known, unparked = load(1, names), {}
for i = 1, #names do
    local row = known[names[i]]
    if row then
        local another = row[GRANT] ~= grants[i]
        local unpark = row[PARKED] == NEEDS_REAUTH and (force or another) or row[PARKED] == OPERATOR and force
        if another and row[WORKER] then
            -- What the old grant brings about counts for nothing: the job waits again, from its own time.
            local run_at = row[RUN_AT]
            make_wishes()
            take_again(row)
            row[RUN_AT], row[BACKING_OFF] = run_at, false
        end
        if another or unpark then
            row[GRANT] = grants[i]
            if unpark then
                row[PARKED], row[DUE_AT] = 0, due_at
                unparked[#unparked + 1] = i - 1
            end
            touch(row)
        end
    end
end
flush()
return answer('ok', unparked)
