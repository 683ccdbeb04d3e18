-- Extends leases: blocks, names and tokens side by side. Answers the tokens that are lost.

local _, blocks, names, tokens, lease_ms = unpack(arguments)
local names_of = {}
for i = 1, #names do
    local block = blocks[i]
    names_of[block] = names_of[block] or {}
    names_of[block][#names_of[block] + 1] = names[i]
end
for block, of in pairs(names_of) do
    load(block, of)
end
local lost = {}
for i = 1, #names do
    local row = rows[blocks[i]][names[i]]
    if is_live(row, tokens[i]) then
        row[LEASE_MS], row[EXPIRES] = lease_ms, now + lease_ms
        touch(row)
    else
        lost[#lost + 1] = tokens[i]
    end
end
flush()
return answer('ok', lost)
