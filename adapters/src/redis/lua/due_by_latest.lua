-- Nobody waits for a tick of the old pattern when there is a new one: a page of those who would.

local PAGE = 200

local latest = arguments[2]
local names = call('ZRANGEBYSCORE', key(1, DUE), '(' .. string.format('%.0f', latest), '+inf', 'LIMIT', 0, PAGE)
local known = load(1, names)
for i = 1, #names do
    known[names[i]][DUE_AT] = latest
    touch(known[names[i]])
end
flush()
return answer('ok', #names == PAGE)
