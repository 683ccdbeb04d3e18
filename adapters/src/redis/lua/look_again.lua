-- A page of the jobs that wait for their user's requests: the limit they met has changed.

local PAGE = 200

local names = call('ZRANGE', key(1, HELD), 0, PAGE - 1)
local known = load(1, names)
for i = 1, #names do
    known[names[i]][HELD_UNTIL] = false
    touch(known[names[i]])
end
flush()
return answer('ok', #names == PAGE)
