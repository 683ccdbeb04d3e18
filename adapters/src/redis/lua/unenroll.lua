-- Users cease to be synced: waiting jobs go, active ones lose their lease, the cursor is forgotten.

make_flows()
local names = arguments[2]
local known, count = load(1, names), 0
for i = 1, #names do
    if known[names[i]] then
        remove_row(1, names[i])
        flows.forget_asked(1, names[i])
        count = count + 1
    end
end
flush()
flows.flush()
return answer('ok', count)
